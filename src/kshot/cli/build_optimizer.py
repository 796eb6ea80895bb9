"""From options to the outer loop's optimizer."""

import math
from collections.abc import Callable

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR

from kshot.cli.learner_options import (
    ClassifierOptions,
    LearnerOptions,
    MAMLOptions,
    MemoryOptions,
    MetricOptions,
    ReptileOptions,
)
from kshot.clipping import clip_norm, clip_value
from kshot.core import Learner

__all__ = ["build_optimizer"]


def build_optimizer(options: LearnerOptions, learner: Learner) -> tuple[Optimizer, LRScheduler | None]:
    """Build the outer loop's optimizer, and its schedule where it has one.

    Raises:
        ValueError: a cosine has no length.
    """
    if isinstance(options, ReptileOptions):
        descent = torch.optim.SGD(learner.parameters(), options.lr)
        return descent, None if options.steps is None else _falling(descent, options.steps, lambda left: left)
    optimizer = torch.optim.Adam(learner.parameters(), options.lr)
    if isinstance(options, MemoryOptions):
        clip_norm(optimizer, 1.0)
    if isinstance(options, MetricOptions | MemoryOptions | ClassifierOptions):
        return optimizer, StepLR(optimizer, options.halve_every, 0.5)
    if not isinstance(options, MAMLOptions):
        return optimizer, None
    if options.clip is not None:
        clip_value(optimizer, options.clip)
    if not options.cosine:
        return optimizer, None
    if options.steps is None:
        raise ValueError("--cosine needs --steps, over which the learning rate falls.")
    least = 1e-5 / options.lr
    return optimizer, _falling(
        optimizer, options.steps, lambda left: least + (1 - least) * (1 - math.cos(math.pi * left)) / 2
    )


def _falling(optimizer: Optimizer, steps: int, factor: Callable[[float], float]) -> LRScheduler:
    """Multiply the learning rate by a function of the share of steps that is left, 1 to 0."""
    # A schedule of a function is saved without it, so that a resumed run falls over its new number of steps.
    return LambdaLR(optimizer, lambda step: factor(max(0.0, 1 - step / steps)))
