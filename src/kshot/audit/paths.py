"""The meta-gradient of one model along several paths: as textbooks write it, and as kshot takes it."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.overrides import TorchFunctionMode

from kshot.batching import unstack
from kshot.core import Episode, Inputs
from kshot.finite_differences import finite_difference_error
from kshot.learners.gradient import MAML
from kshot.learners.gradient.inner_loop import Mode
from kshot.losses import Loss
from kshot.nets.norm import SupportStatisticsNorm, recorded_statistics
from kshot.plain_operations.normalisation import weight_norm
from kshot.weights import Weights, call

__all__ = [
    "PATHS",
    "Failure",
    "PlainWeightNorm",
    "Problem",
    "attempt",
    "difference",
    "gradients_by",
    "gradients_of",
    "kshot_gradients",
    "seeded",
    "slope_error",
    "textbook_loss",
    "torch_func_loss",
]

T = TypeVar("T")
PATHS: tuple[tuple[Mode, bool], ...] = (("mixed", True), ("mixed", False), ("reverse", True), ("reverse", False))


@dataclass(frozen=True)
class Problem:
    """A model, and the stacked tasks and loss that it is judged by."""

    model: nn.Module
    loss: Loss
    tasks: Episode
    lr: float

    def copied(self) -> "Problem":
        """Return the same problem with a model of its own, for what may change a model."""
        return Problem(copy.deepcopy(self.model), self.loss, self.tasks, self.lr)


@dataclass(frozen=True)
class Failure:
    """Why something could not run."""

    cause: str


def attempt(function: Callable[[], T]) -> T | Failure:
    """Call a function from the same random state each time; whatever a model raises is a result here."""
    try:
        with seeded():
            return function()
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return Failure(f"{type(error).__name__}: {lines[0]}")


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draw the same random numbers each time, and go on from the present state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def textbook_loss(problem: Problem, steps: int, create_graph: bool = True) -> Tensor:
    """Return the meta-loss by a loop over tasks with autograd through every step, and nothing of kshot's inner loop."""
    losses = []
    for support, query in unstack(problem.tasks):
        weights: Weights = dict(problem.model.named_parameters())
        with torch.enable_grad():
            for _ in range(steps):
                loss = problem.loss(call(problem.model, weights, support.x), support.y)
                gradients = gradients_of(loss, weights, create_graph)
                weights = {name: weight - problem.lr * gradients[name] for name, weight in weights.items()}
        statistics = _support_statistics(problem.model, weights, support.x)
        losses.append(problem.loss(call(problem.model, {**weights, **statistics}, query.x), query.y))
    return torch.stack(losses).mean()


class PlainWeightNorm(TorchFunctionMode):
    """While entered, weight normalisation is plain operations: torch's own has wrong second derivatives."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the plain operation in the place of torch's own."""
        del types
        return (weight_norm if function is torch._weight_norm else function)(*args, **(kwargs or {}))


def gradients_by(loss: Callable[[Problem], Tensor], problem: Problem) -> Weights:
    """Return the gradient of a loss for each parameter, by autograd on a copy."""
    twin = problem.copied()
    return gradients_of(loss(twin), dict(twin.model.named_parameters()))


def gradients_of(loss: Tensor, weights: Weights, create_graph: bool = False) -> Weights:
    """Return the gradient for each weight: zeros where the loss does not depend on it."""
    if not loss.requires_grad:
        return {name: torch.zeros_like(weight) for name, weight in weights.items()}
    wanted = list(weights.values())
    found = torch.autograd.grad(loss, wanted, create_graph=create_graph, allow_unused=True, materialize_grads=True)
    return dict(zip(weights, found, strict=True))


def _support_statistics(model: nn.Module, weights: Weights, x: Inputs) -> Weights:
    """Return what SupportStatisticsNorm, a layer of ours, normalises queries by."""
    if not any(isinstance(layer, SupportStatisticsNorm) for layer in model.modules()):
        return {}
    with recorded_statistics(model) as statistics:
        call(model, weights, x)
    return statistics


def kshot_gradients(problem: Problem, steps: int, mode: Mode, batched: bool) -> Weights:
    """Return the meta-gradient as ``meta_loss(tasks).backward()`` gives it, for stacked or listed tasks."""
    learner = MAML(copy.deepcopy(problem.model), problem.lr, steps, mode, loss=problem.loss)
    learner.meta_loss(problem.tasks if batched else unstack(problem.tasks)).backward()  # type: ignore[no-untyped-call]
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in learner.model.named_parameters()
    }


def torch_func_loss(problem: Problem, steps: int) -> Tensor:
    """Return the meta-loss by ``torch.func`` alone: vmap over tasks, with a gradient inside."""

    def task_loss(task: Episode) -> Tensor:
        weights: Weights = dict(problem.model.named_parameters())

        def support_loss(weights: Weights) -> Tensor:
            return problem.loss(call(problem.model, weights, task.support.x), task.support.y)

        for _ in range(steps):
            gradients = grad(support_loss)(weights)
            weights = {name: weight - problem.lr * gradients[name] for name, weight in weights.items()}
        return problem.loss(call(problem.model, weights, task.query.x), task.query.y)

    losses: Tensor = vmap(task_loss, randomness="different")(problem.tasks)
    return losses.mean()


def difference(found: Weights, expected: Weights) -> float:
    """Return the relative error over all parameters together: NaN where zero is expected, of which nothing is a share."""
    ours, truth = (torch.cat([side[name].flatten() for name in expected]) for side in (found, expected))
    return float((ours - truth).norm() / truth.norm())


def slope_error(problem: Problem, loss: Callable[[Problem], Tensor], gradients: Weights) -> float:
    """Return how far gradients are from finite differences of a loss, over these parameters together.

    One vector holds them all, so that it takes a dozen evaluations however many there are.
    """
    twin = problem.copied()
    named = dict(twin.model.named_parameters())
    moved = [named[name] for name in gradients]
    vector = parameters_to_vector(moved).detach()
    vector_to_parameters(vector, moved)  # views of the vector, which move with it

    def evaluated() -> Tensor:
        with seeded():
            return loss(twin)

    flat = torch.cat([gradient.flatten() for gradient in gradients.values()])
    return finite_difference_error(evaluated, {"all": vector}, {"all": flat})[0]
