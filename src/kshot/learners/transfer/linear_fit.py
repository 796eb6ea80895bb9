"""Logistic and ridge regression of embedded examples, with a bias that is not penalised, in plain tensor operations."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["logistic_weights", "ridge_weights"]

_Pair: TypeAlias = tuple[Tensor, Tensor, Tensor]  # a move, how the slope changed, and one over their product
_MEMORY = 20  # moves that L-BFGS remembers
_EDGES = [0.0, *(2.0**power for power in range(-6, 7))]  # where the search along a direction looks first


def ridge_weights(
    z: Float[Tensor, "n d"], y: Float[Tensor, "n targets"], penalty: float
) -> Float[Tensor, "features targets"]:
    r"""Return the minimum of :math:`\tfrac12 \lVert Z W + b - Y \rVert^2 + \tfrac\lambda2 \lVert W \rVert^2`.

    It is ``(d + 1, targets)``, with the bias b last.

    >>> ridge_weights(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [3.0], [5.0]]), 1e-6).flatten()
    tensor([2.0000, 1.0000])
    """
    centre, mean = z.mean(0), y.mean(0)
    w = _shrunken(z - centre, penalty)((z - centre).mT @ (y - mean))
    return torch.cat([w, (mean - centre @ w)[None]])


def logistic_weights(
    z: Float[Tensor, "n d"], y: Float[Tensor, "n ways"], penalty: float, steps: int
) -> Float[Tensor, "features ways"]:
    r"""Return the minimum of :math:`-\sum_i \log p(y_i \mid z_i) + \tfrac\lambda2 \lVert W \rVert^2`, p by softmax.

    L-BFGS (Dong Liu, Jorge Nocedal 1989, "On the limited memory BFGS method for large scale optimization") with exact
    searches along its directions, preconditioned by a bound of the Hessian that holds everywhere (Dankmar Böhning 1992,
    "Multinomial logistic regression algorithm"). An all-zero row of y weighs nothing.

    Args:
        z: features.
        y: labels.
        penalty: lambda.
        steps: how many directions are searched along; after convergence a step changes nothing.
    """
    weight = y.sum(1, keepdim=True)
    centre = (weight * z).sum(0) / weight.sum().clamp_min(1)
    rows = torch.cat([z - centre, torch.ones_like(z[:, :1])], 1)  # centred, so that the bias is nearly on its own
    shrink = torch.cat([torch.full_like(centre, penalty), torch.zeros_like(centre[:1])])[:, None]
    precondition = _bounded((weight / 2).sqrt() * (z - centre), (weight.sum() / 2).clamp_min(0.5), penalty)
    w = torch.zeros_like(rows.mT @ y)
    logits = rows @ w
    slope = rows.mT @ (weight * logits.softmax(1) - y) + shrink * w
    past: list[_Pair] = []
    for _ in range(steps):
        direction = -_quasi_newton(slope, past, precondition)
        ahead = rows @ direction
        size = _search(logits, ahead, y, weight, (shrink * direction * w).sum(), (shrink * direction.square()).sum())
        w, logits = w + size * direction, logits + size * ahead
        before, slope = slope, rows.mT @ (weight * logits.softmax(1) - y) + shrink * w
        past = [*past[1 - _MEMORY :], _pair(size * direction, slope - before)]
    return torch.cat([w[:-1], w[-1:] - centre @ w[:-1]])


def _pair(move: Tensor, change: Tensor) -> _Pair:
    product = (move * change).sum()
    return move, change, torch.where(product > 0, 1 / _positive(product), 0)  # after convergence a pair says nothing


def _quasi_newton(slope: Tensor, past: list[_Pair], precondition: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the product of the approximate inverse Hessian with the slope, by the two loops of the paper."""
    shares = []
    for move, change, inverse in reversed(past):
        shares.append(inverse * (move * slope).sum())
        slope = slope - shares[-1] * change
    result = precondition(slope)
    if past:
        move, change, inverse = past[-1]
        scale = (move * change).sum() / _positive((change * precondition(change)).sum())
        result = torch.where(inverse > 0, scale, 1) * result
    for (move, change, inverse), share in zip(past, reversed(shares), strict=True):
        result = result + (share - inverse * (change * result).sum()) * move
    return result


def _search(
    logits: Tensor, ahead: Tensor, y: Tensor, weight: Tensor, linear: Tensor, square: Tensor
) -> Float[Tensor, ""]:
    """Return how far to go along a direction: where the slope of the convex loss is zero."""

    def slope(size: Tensor) -> Tensor:
        return (
            ((weight * (logits + size * ahead).softmax(-1) - y) * ahead).sum((-1, -2))
            + linear
            + size[..., 0, 0] * square
        )

    edges = logits.new_tensor(_EDGES)
    before = (slope(edges[:, None, None]) <= 0).cumprod(0).sum() - 1
    low, high = (edges[(before + i).clamp(0, len(edges) - 1)] for i in (0, 1))
    size = low
    for _ in range(4):  # Newton's method, between the edges
        p = (logits + size * ahead).softmax(1)
        curved = weight * (p * ahead.square()).sum(1, keepdim=True) - weight * (p * ahead).sum(1, keepdim=True).square()
        size = (size - slope(size[None, None]) / _positive(curved.sum() + square)).clamp(low, high)
    return size


def _bounded(z: Tensor, examples: Tensor, penalty: float) -> Callable[[Tensor], Tensor]:
    shrunken = _shrunken(z, penalty)
    return lambda slope: torch.cat([shrunken(slope[:-1]), slope[-1:] / examples])


def _shrunken(z: Float[Tensor, "n d"], penalty: float) -> Callable[[Tensor], Tensor]:
    r"""Return the product of :math:`(Z^\top Z + \lambda I)^{-1}` with a matrix; the smaller system is solved."""
    few = len(z) < z.shape[1]
    system = z @ z.mT if few else z.mT @ z
    root = torch.linalg.cholesky(system + penalty * torch.eye(len(system), dtype=z.dtype, device=z.device))
    if few:
        return lambda right: (right - z.mT @ torch.cholesky_solve(z @ right, root)) / penalty
    return lambda right: torch.cholesky_solve(right, root)


def _positive(x: Tensor) -> Tensor:
    """Return x, or one where it is zero, by which nothing can be divided."""
    return torch.where(x > 0, x, torch.ones_like(x))
