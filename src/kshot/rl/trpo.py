"""Trust-region steps: the natural gradient by conjugate gradients, and a line search that keeps to the region."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Judged", "Step", "conjugate_gradients", "natural_step", "search"]


class Judged(NamedTuple):
    """What some weights come to: the loss that is to fall, and the divergence from the old policy."""

    loss: float
    divergence: float


class Step(NamedTuple):
    """A step that a line search has found, or none: then ``scale`` is zero."""

    scale: float
    judged: Judged
    tried: int


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Float[Tensor, " d"], steps: int, tolerance: float = 1e-10
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    r"""Solve :math:`A x = b` for a positive definite A that is known by its products; return x and the residual b - A x.

    Magnus Hestenes, Eduard Stiefel 1952, "Methods of conjugate gradients for solving linear systems".

    Args:
        product: multiplies with A.
        b: the right side.
        steps: products at most; so many as b has numbers are exact but for rounding.
        tolerance: of the squared residual as a part of the squared right side, where it ends earlier.

    >>> conjugate_gradients(lambda v: torch.tensor([1.0, 4.0]) * v, torch.tensor([1.0, 2.0]), steps=2)[0]
    tensor([1.0000, 0.5000])
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction, squared = residual, residual @ residual
    enough = tolerance * squared
    for _ in range(steps):
        if squared <= enough:
            break
        along = product(direction)
        length = squared / (direction @ along)
        x = x + length * direction
        residual = residual - length * along
        before, squared = squared, residual @ residual
        direction = residual + squared / before * direction
    return x, residual


def natural_step(
    gradient: Float[Tensor, " d"], product: Callable[[Tensor], Tensor], radius: float, steps: int
) -> Float[Tensor, " d"]:
    r"""Return :math:`-\sqrt{2\delta / (s^\top F s)}\, s` with :math:`F s = g`: the divergence is delta to second order.

    John Schulman et al. 2015, "Trust region policy optimization".

    Args:
        gradient: of the loss.
        product: multiplies with the Fisher information.
        radius: delta.
        steps: of conjugate gradients.

    Raises:
        FloatingPointError: the gradient is not finite, or the Fisher information is not positive along the solution.
    """
    if not gradient.isfinite().all():
        raise FloatingPointError("the meta-gradient is not finite: the policy has diverged; try smaller inner steps.")
    if not gradient.any():
        return gradient
    direction, residual = conjugate_gradients(product, gradient, steps)
    curved = (direction @ (gradient - residual)).item()  # F s is the gradient less the residual: no further product
    if not (math.isfinite(curved) and curved > 0):
        raise FloatingPointError(f"the Fisher information along the step is {curved}; it must be above zero.")
    return -math.sqrt(2 * radius / curved) * direction


def search(
    judge: Callable[[float], Judged], before: Judged, radius: float, shrink: float = 0.8, tries: int = 15
) -> Step:
    """Return the longest of ever shorter steps that lowers the loss and keeps the divergence within the radius.

    Args:
        judge: the loss and the divergence after a step that is scaled by a factor.
        before: those without a step.
        radius: of the trust region.
        shrink: factor from one try to the next.
        tries: steps that are tried at most.
    """
    for tried in range(tries):
        judged = judge(shrink**tried)
        if judged.loss < before.loss and judged.divergence <= radius:
            return Step(shrink**tried, judged, tried + 1)
    return Step(0.0, before, tries)
