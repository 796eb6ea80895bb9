"""Learners that compare: a query belongs with the support examples that it lies close to."""

from kshot.learners.metric.prototypical import Prototypical as Prototypical
