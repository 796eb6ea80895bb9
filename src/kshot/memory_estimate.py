"""How much memory the meta-gradient will take, known before it is computed."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kshot.batching import map_leaves
from kshot.core import Episode
from kshot.learners.gradient import MAML
from kshot.learners.gradient.maml import Differentiate
from kshot.losses import Loss
from kshot.memory import peak_bytes
from kshot.meta_gradient import MetaGradient

__all__ = ["Plan", "estimate", "fitting_plan"]

_EXACT: tuple[Differentiate, ...] = ("mixed", "reverse")


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


def estimate(model: nn.Module, loss: Loss, batch: Episode, steps: int, plan: Plan | None = None) -> int:
    """Return the peak of bytes that one meta-gradient allocates, beyond the model and the batch.

    It runs on torch's ``meta`` device, where tensors have shapes and no memory. A model that looks at values cannot run
    there: it is measured on one task and on two, and the rest is a straight line. What an operation needs only while
    it runs, and what an allocator keeps in reserve, come on top.

    Args:
        model: what is adapted.
        loss: what support and query predictions are judged by.
        batch: stacked tasks of the size that is meant.
        steps: inner steps.
        plan: how; ``mixed`` with all tasks at once by default.

    >>> from kshot.core import Batch
    >>> from kshot.losses import mean_squared_error
    >>> rows = Batch(torch.randn(8, 90, 2), torch.randn(8, 90, 1))
    >>> model, tasks = nn.Sequential(nn.Linear(2, 40), nn.Tanh(), nn.Linear(40, 1)), Episode(rows, rows)
    >>> reverse, mixed = (estimate(model, mean_squared_error, tasks, 4, Plan(mode)) for mode in ("reverse", "mixed"))
    >>> mixed < reverse
    True
    """
    plan = plan or Plan()
    tasks = len(batch.query.y)
    size = min(plan.chunk_size or tasks, tasks)
    chunks = 1 if size == tasks else 2  # a second one finds the gradients of the first in its way
    try:
        unreal = map_leaves(lambda leaf: leaf.to("meta"), batch)
        with torch.device("meta"):
            return _peak(_on_meta(model), loss, unreal, steps, plan, size, chunks)
    except RuntimeError:
        one, two = (_peak(copy.deepcopy(model), loss, batch, steps, plan, few, chunks) for few in (1, min(2, size)))
        return one + (size - 1) * (two - one)


def _peak(model: nn.Module, loss: Loss, batch: Episode, steps: int, plan: Plan, size: int, chunks: int) -> int:
    few = map_leaves(lambda leaf: leaf[: size * chunks], batch)
    learner = MAML(model, 0.1, steps, plan.differentiate, loss=loss, checkpoint_every=plan.checkpoint_every)
    learner.zero_grad()
    with torch.random.fork_rng(devices=[]):
        return peak_bytes(lambda: MetaGradient(learner, size)(few))


def _on_meta(model: nn.Module) -> nn.Module:
    """Copy a model without its values; what is tied stays tied."""
    known: dict[int, Any] = {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    for parameter in model.parameters():
        known[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    return copy.deepcopy(model, known)


def fitting_plan(model: nn.Module, loss: Loss, batch: Episode, steps: int, budget: int) -> Plan | None:
    """Return the first plan that stays within a budget in bytes, or None where nothing does.

    ``mixed`` comes before ``reverse``, which needs less where a model has many weights and tasks few examples; both with
    fewer and fewer tasks at a time, for the same gradient. Then steps are taken again on the way back, for one more
    gradient each. First order comes last, since it is another gradient.
    """
    plans = _plans(len(batch.query.y), steps)
    return next((plan for plan in plans if estimate(model, loss, batch, steps, plan) <= budget), None)


def _plans(tasks: int, steps: int) -> Iterator[Plan]:
    every = math.isqrt(steps)
    sizes = [None, *(tasks // 2**k for k in range(1, tasks.bit_length()))]
    yield from (Plan(mode, chunk_size=size) for size in sizes for mode in _EXACT)
    if every > 1:
        yield Plan(checkpoint_every=every, chunk_size=1)
    yield Plan("first_order", chunk_size=1)
