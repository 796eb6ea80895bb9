"""How much memory the meta-gradient will take, known before it is computed."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from kshot.core import Episode
from kshot.learners.gradient import MAML
from kshot.learners.gradient.maml import Differentiate
from kshot.losses import Loss
from kshot.memory import peak_bytes
from kshot.meta_gradient import MetaGradient

__all__ = ["Plan", "estimate", "fitting_plan"]


@dataclass(frozen=True)
class Plan:
    """A way to compute the meta-gradient of a batch of tasks; arguments as for MAML and MetaGradient.

    >>> print(Plan(checkpoint_every=3, chunk_size=8))
    mixed, checkpoint_every=3, chunk_size=8
    """

    differentiate: Differentiate = "mixed"
    checkpoint_every: int | None = None
    chunk_size: int | None = None

    def __str__(self) -> str:
        told = {"checkpoint_every": self.checkpoint_every, "chunk_size": self.chunk_size}
        return ", ".join([self.differentiate, *(f"{name}={value}" for name, value in told.items() if value)])


def estimate(model: nn.Module, loss: Loss, batch: Episode, steps: int, plan: Plan = Plan()) -> int:
    """TODO."""


def fitting_plan(model: nn.Module, loss: Loss, batch: Episode, steps: int, budget: int) -> Plan | None:
    """Return the fastest plan that stays within a budget in bytes, or None; all but the last are exact.

    Fewer tasks at a time cost nothing but width. Then steps are taken again on the way back, which costs one more
    gradient each. First order comes last, since it is another gradient.
    """
    plans = _plans(len(batch.query.y), steps)
    return next((plan for plan in plans if estimate(model, loss, batch, steps, plan) <= budget), None)


def _plans(tasks: int, steps: int) -> Iterator[Plan]:
    every = math.isqrt(steps)
    sizes = [None, *(tasks // 2**k for k in range(1, tasks.bit_length()))]
    yield from (Plan(chunk_size=size) for size in sizes)
    if every > 1:
        yield Plan(checkpoint_every=every, chunk_size=1)
    yield Plan("first_order", chunk_size=1)
