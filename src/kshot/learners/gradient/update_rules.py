"""How an inner step turns a gradient into new weights.

A rule is a pair of pure functions. What it keeps between steps (a running mean, say) is handed from step to step, so that
the meta-gradient passes through it too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from kshot.weights import Weights

__all__ = ["Sizes", "Slots", "UpdateRule", "adam", "check_step", "momentum", "sgd"]

Slots: TypeAlias = dict[str, Weights]  # what a rule keeps for each weight, by what it is
Sizes: TypeAlias = dict[str, Tensor]  # the step size of each weight: a scalar, or one for each of its elements


@dataclass(frozen=True)
class UpdateRule:
    """A way of taking a step.

    Args:
        init: maps weights to what is kept before the first step.
        update: maps gradients, weights, what is kept, and step sizes to new weights and what is kept from now on.
        linear: whether the new weights are linear in the gradients; the meta-gradient then needs one pass less.
    """

    init: Callable[[Weights], Slots]
    update: Callable[[Weights, Weights, Slots, Sizes], tuple[Weights, Slots]]
    linear: bool


def sgd() -> UpdateRule:
    r"""Return gradient descent, :math:`w' = w - \alpha g`.

    >>> one = {"w": torch.ones(1)}
    >>> sgd().update(one, one, {}, {"w": torch.tensor(0.1)})
    ({'w': tensor([0.9000])}, {})
    """
    return UpdateRule(_nothing, _descended, linear=True)


def momentum(decay: float = 0.9) -> UpdateRule:
    r"""Return gradient descent with a heavy ball, :math:`m' = \mu m + g, \; w' = w - \alpha m'`, as torch's SGD does.

    Boris Polyak 1964, "Some methods of speeding up the convergence of iteration methods".
    """
    return UpdateRule(_no_momentum, partial(_pushed, decay), linear=True)


def adam(betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> UpdateRule:
    r"""Return Adam with bias correction, as ``torch.optim.Adam`` does.

    .. math:: w' = w - \alpha \hat m / (\sqrt{\hat v} + \epsilon)

    The correction divides a running mean by the running mean of ones, :math:`1 - \beta^t` after t steps, so that it is right
    for averages of what several tasks keep, too. Where a gradient has been zero so far the square root has no derivative;
    it is taken to be zero, not NaN.

    Diederik Kingma, Jimmy Ba 2015, "Adam: a method for stochastic optimization".
    """
    return UpdateRule(_no_averages, partial(_scaled, betas, eps), linear=False)


def check_step(lr: float) -> None:
    """Raise ValueError where an inner step size is negative or not finite."""
    if not 0 <= lr < math.inf:
        raise ValueError(f"the inner step size must be finite and at least 0; found {lr}.")


# Functions of the module, so that rules, and learners with them, can be pickled.


def _nothing(weights: Weights) -> Slots:
    del weights
    return {}


def _no_momentum(weights: Weights) -> Slots:
    return {"momentum": _zeros(weights)}


def _no_averages(weights: Weights) -> Slots:
    ones = {name: weight.new_zeros(()) for name, weight in weights.items()}
    return {"mean": _zeros(weights), "square": _zeros(weights), "mean_ones": ones, "square_ones": ones}


def _descended(gradients: Weights, weights: Weights, slots: Slots, sizes: Sizes) -> tuple[Weights, Slots]:
    return {name: weight - sizes[name] * gradients[name] for name, weight in weights.items()}, slots


def _pushed(decay: float, gradients: Weights, weights: Weights, slots: Slots, sizes: Sizes) -> tuple[Weights, Slots]:
    ball = {name: decay * slots["momentum"][name] + gradient for name, gradient in gradients.items()}
    return {name: weight - sizes[name] * ball[name] for name, weight in weights.items()}, {"momentum": ball}


def _scaled(
    betas: tuple[float, float], eps: float, gradients: Weights, weights: Weights, slots: Slots, sizes: Sizes
) -> tuple[Weights, Slots]:
    decay1, decay2 = betas
    mean = {name: decay1 * slots["mean"][name] + (1 - decay1) * g for name, g in gradients.items()}
    square = {name: decay2 * slots["square"][name] + (1 - decay2) * g.square() for name, g in gradients.items()}
    mean_ones = {name: decay1 * one + (1 - decay1) for name, one in slots["mean_ones"].items()}
    square_ones = {name: decay2 * one + (1 - decay2) for name, one in slots["square_ones"].items()}
    stepped = {}
    for name, weight in weights.items():
        root = _square_root(square[name] / square_ones[name])
        stepped[name] = weight - sizes[name] * mean[name] / mean_ones[name] / (root + eps)
    return stepped, {"mean": mean, "square": square, "mean_ones": mean_ones, "square_ones": square_ones}


def _zeros(weights: Weights) -> Weights:
    return {name: torch.zeros_like(weight) for name, weight in weights.items()}


def _square_root(x: Tensor) -> Tensor:
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1).sqrt(), 0)
