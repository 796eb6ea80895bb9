"""What an inner loop minds about a model, found by looking at it and calling it."""

import copy
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_leaves

from kshot.audit.paths import Failure, Problem, attempt, gradients_by, seeded, slope_error, textbook_loss
from kshot.audit.records import Finding
from kshot.batching import unstack
from kshot.learners.gradient import MAML

__all__ = [
    "NOT_FINITE",
    "dropout_findings",
    "missing_derivative",
    "purity_findings",
    "reach_findings",
    "sharing_findings",
    "vmap_findings",
]

NOT_FINITE = "Look for a division by zero, or the root, the logarithm or the norm of zero."
_SAME = 1e-12  # relative, between losses in float64 that should be one number
_CLOSE = 1e-5  # relative; finite differences themselves are good to about 1e-8


def sharing_findings(model: nn.Module) -> Iterator[Finding]:
    """Name submodules and parameters that stand in several places."""
    modules: dict[int, list[str]] = {}
    parameters: dict[int, list[str]] = {}
    for prefix, part in model.named_modules():  # each module object once
        for places, children in ((modules, part._modules), (parameters, part._parameters)):
            for key, child in children.items():
                if child is not None:
                    places.setdefault(id(child), []).append(f"{prefix}.{key}" if prefix else key)
    for names in modules.values():
        if len(names) > 1 and any(True for _ in model.get_submodule(names[0]).parameters()):
            what = "one module under several names, which torch.func.functional_call would leave without parameters."
            yield Finding("note", _listed(names), what, "kshot replaces its parameters once; nothing to do.")
    for names in parameters.values():
        if len(names) > 1:
            yield Finding("note", _listed(names), "one parameter, tied.", "kshot adapts it once; nothing to do.")


def dropout_findings(model: nn.Module) -> Iterator[Finding]:
    """Name the layers that drop out in the mode the model is in, and silence them."""
    names = []
    for name, layer in model.named_modules():
        rate = "p" if isinstance(layer, nn.modules.dropout._DropoutNd) else "dropout"
        drops = isinstance(layer, nn.modules.dropout._DropoutNd | nn.MultiheadAttention | nn.RNNBase)
        if drops and layer.training and getattr(layer, rate) > 0:
            setattr(layer, rate, 0.0)
            names.append(name)
    if names:
        what = "drops out while training; the errors are those without."
        yield Finding("note", _listed(names), what, "mixed draws the same masks again on the way back; nothing to do.")


def purity_findings(problem: Problem) -> Iterator[Finding]:
    """Name buffers that a call changes, and say whether the loss is the same function at every call."""
    twin = problem.copied()
    before = {name: buffer.clone() for name, buffer in twin.model.named_buffers()}
    first, again, other = (_support_loss(twin, seed).item() for seed in (0, 0, 1))
    after = dict(twin.model.named_buffers())
    changed = [name for name in after if name not in before or not torch.equal(before[name], after[name])]
    differs = abs(again - first) > _SAME * abs(first)
    if changed:
        what = f"a call in {'train' if problem.model.training else 'eval'} mode changes these buffers"
        what += ", and the next call gives another output." if differs else "."
        remedy = (
            "Keep nothing between calls: mixed calls the model again on the way back, and vmap must not write to it."
        )
        yield Finding("wrong" if differs else "note", _listed(changed), what, remedy)
    elif differs:
        what = "two calls on the same inputs give different outputs, though no buffer changes."
        yield Finding("wrong", "forward", what, "Keep nothing on the module between calls.")
    if not differs and abs(other - again) > _SAME * abs(again):
        what = "it draws random numbers outside nn.Dropout, so that no two paths compute the same function."
        yield Finding("wrong", "forward", what, "Use nn.Dropout, which is silenced here.")


def reach_findings(problem: Problem) -> Iterator[Finding]:
    """Name parameters to which the support loss has no gradient, or another than finite differences say."""
    twin = problem.copied()
    named = dict(twin.model.named_parameters())
    loss = _support_loss(twin)
    found: Sequence[Tensor | None] = [None] * len(named)
    if loss.requires_grad:
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    reached = {name: gradient for name, gradient in zip(named, found, strict=True) if gradient is not None}
    unreached = [name for name in named if name not in reached]
    cut = [name for name in unreached if _moves_loss(problem, name)]
    remedy = "Look for .detach(), .item(), .data, torch.no_grad() or numpy on the way from it to the output."
    if cut:
        yield Finding("wrong", _listed(cut), "the support loss depends on it, but is detached from it.", remedy)
    if unused := [name for name in unreached if name not in cut]:
        yield Finding(
            "note", _listed(unused), "the support loss does not use it, so the inner loop leaves it as it is."
        )
    infinite = [name for name, gradient in reached.items() if not gradient.isfinite().all()]
    if infinite:
        yield Finding("wrong", _listed(infinite), "the gradient of the support loss is not finite.", NOT_FINITE)
    elif reached and slope_error(problem, _support_loss, reached) > _CLOSE:
        off = [name for name in reached if slope_error(problem, _support_loss, {name: reached[name]}) > _CLOSE]
        what = "the gradient of the support loss is not what finite differences say: a part of its path is detached."
        yield Finding("wrong", _listed(off), what, f"{remedy} Or the backward pass of a function of yours is off.")


def _support_loss(problem: Problem, seed: int = 0) -> Tensor:
    with seeded(seed):
        tasks = unstack(problem.tasks)
        return torch.stack([problem.loss(problem.model(x), y) for (x, y), _ in tasks]).mean()


@torch.no_grad()
def _moves_loss(problem: Problem, name: str) -> bool:
    twin = problem.copied()
    before = _support_loss(twin).item()
    parameter = twin.model.get_parameter(name)
    with seeded(1):
        parameter.add_(torch.randn_like(parameter), alpha=1e-3)
    return abs(_support_loss(twin).item() - before) > _SAME * abs(before)


def missing_derivative(problem: Problem) -> tuple[str, str] | None:
    """Return the derivative that plain autograd lacks for a second order on this model, and the layer that needs it.

    The model is called as its owner would, with torch's choice of kernels, which depends on dtype and device.
    """
    outcome = attempt(lambda: gradients_by(partial(textbook_loss, steps=1), problem))
    found = re.search(r"derivative for '?(?:aten::)?(\w+)'? is not implemented", getattr(outcome, "cause", ""))
    return (found[1], _layer_of(problem.copied(), found[1])) if found else None


def _layer_of(problem: Problem, derivative: str) -> str:
    """Return the innermost layer whose output has this backward node in its graph."""
    node = "".join(part.capitalize() for part in derivative.split("_"))
    seen: set[Any] = set()
    layers: list[str] = []

    def look(name: str, output: Any) -> None:
        waiting = [leaf.grad_fn for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        while waiting:
            function = waiting.pop()
            if function is None or function in seen:
                continue
            seen.add(function)
            if function.name().startswith(node):
                layers.append(name or "forward")
            waiting.extend(before for before, _ in function.next_functions)

    handles = [
        layer.register_forward_hook(lambda *args, name=name: look(name, args[-1]))
        for name, layer in problem.model.named_modules()
    ]
    attempt(lambda: _support_loss(problem))
    for handle in handles:
        handle.remove()
    return _listed(list(dict.fromkeys(layers))) if layers else "the model"


def vmap_findings(problem: Problem) -> Iterator[Finding]:
    """Say where vmap over tasks gives way to a loop: for all of a task, or for some operations."""
    learner = MAML(copy.deepcopy(problem.model), problem.lr, loss=problem.loss)
    tasks = learner.encode_tasks(problem.tasks)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome = attempt(lambda: vmap(learner.task_loss, randomness="different")(tasks).mean())
        if not isinstance(outcome, Failure):
            attempt(outcome.backward)
    if isinstance(outcome, Failure):
        remedy = "The numbers are the same. For speed, avoid .item(), branches on values and writes in place."
        yield Finding("slow", "vmap", f"not possible, so tasks run one at a time: {outcome.cause}", remedy)
    lacking = re.findall(r"batching rule for (\S+?)\. ", " ".join(str(one.message) for one in caught))
    for operation in dict.fromkeys(lacking):
        yield Finding(
            "slow", operation, "vmap has no rule for it, and loops over tasks there.", "The numbers are the same."
        )


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
