"""Learners that take gradient steps: meta-training finds weights from which few steps are enough."""

from kshot.learners.gradient.maml import MAML as MAML
