"""Where a training step stopped being finite: in which task, and in which layer."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kshot.batching import leaves, unstack
from kshot.core import Episode, Learner, Tasks

__all__ = ["culprit", "is_finite"]


def is_finite(learner: Learner, loss: float) -> bool:
    """Return whether a meta-loss and the gradient that came with it are finite."""
    finite = [p.grad.isfinite().all() for p in learner.parameters() if p.grad is not None]
    return math.isfinite(loss) and (not finite or bool(torch.stack(finite).all()))


def culprit(learner: Learner, tasks: Tasks) -> str:
    """Say which task of a meta-batch, and which layer or parameter, is the first that is not finite.

    The tasks are taken one at a time; the learner's ``.grad`` are left as they were.
    """
    listed = unstack(tasks) if isinstance(tasks, Episode) else tasks
    for number, task in enumerate(listed, 1):
        if where := _first_in(learner, task):
            return f"in task {number} of {len(listed)} in the meta-batch, first in {where}"
    return "in no task of the meta-batch alone"


def _first_in(learner: Learner, task: Episode) -> str | None:
    named = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    with _strange_layers(learner) as layers:
        loss = learner.meta_loss([task])
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    if layers:
        return f"layer {layers[0]}"
    if not loss.isfinite():
        return "the loss itself"
    strange = (name for name, one in zip(named, gradients, strict=True) if one is not None and not one.isfinite().all())
    return next((f"the gradient of {name}" for name in strange), None)


@contextmanager
def _strange_layers(learner: Learner) -> Iterator[list[str]]:
    """Note the layers whose outputs are not finite, in the order in which they are called, inside inner loops too."""
    noted: list[str] = []

    def note(name: str, layer: nn.Module, output: Any) -> None:
        if not all(leaf.isfinite().all() for leaf in leaves(output) if isinstance(leaf, Tensor)):
            noted.append(f"{name} ({type(layer).__name__})")

    layers = [(name, layer) for name, layer in learner.named_modules() if not list(layer.children())]
    handles = [
        layer.register_forward_hook(lambda layer, _, output, name=name: note(name, layer, output))
        for name, layer in layers
    ]
    try:
        yield noted
    finally:
        for handle in handles:
            handle.remove()
