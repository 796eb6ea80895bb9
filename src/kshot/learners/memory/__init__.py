"""Learners with a memory: a network takes in the support set and changes what it does, without a gradient step."""

from kshot.learners.memory.in_context import InContext as InContext
from kshot.learners.memory.snail import SNAIL as SNAIL
