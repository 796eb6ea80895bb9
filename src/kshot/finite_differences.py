"""A gradient checked against differences of the loss: the one judge that needs no automatic differentiation."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

__all__ = ["finite_difference_error", "least_norm"]


def least_norm(gradients: Mapping[str, Tensor]) -> float:
    """Return 1 % of the largest norm: a smaller gradient may be exactly zero, and is judged as if it were so large."""
    return 0.01 * max((gradient.norm().item() for gradient in gradients.values()), default=0.0)


def finite_difference_error(
    loss: Callable[[], Tensor],
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    enough: float = 0.0,
    until: float = math.inf,
) -> tuple[float, str]:
    r"""Compare gradients with central differences :math:`(L(p + hd) - L(p - hd)) / 2h`, along themselves and at random.

    Args:
        loss: evaluated again and again, in float64; the same number at the same parameters.
        parameters: changed in place, and left as they were up to rounding.
        gradients: of some or all of the parameters, by name.
        enough: a relative error below which no further step size is tried along a direction.
        until: a relative error beyond which no further direction is tried.

    Returns:
        The largest relative error, and the name of its parameter. It is infinite where the loss, the gradient or the slope
        of a parameter is not finite.

    >>> p = torch.tensor([3.0], dtype=torch.float64)
    >>> finite_difference_error(lambda: (p**2).sum(), {"p": p}, {"p": 2 * p})[0] < 1e-8
    True
    >>> finite_difference_error(lambda: (p**2).sum(), {"p": p}, {"p": 2.2 * p})[0] > 0.08
    True
    """
    generator = torch.Generator().manual_seed(1)
    value = loss().item()
    for name, gradient in gradients.items():  # before any of them moves its parameter
        if not (math.isfinite(value) and gradient.isfinite().all()):
            return math.inf, name
    # The last term is what rounding of the loss leaves visible of a slope.
    least = max(least_norm(gradients), 1e-3 * abs(value))
    worst = (0.0, "")
    for name, gradient in gradients.items():
        drawn = torch.randn(gradient.shape, generator=generator, dtype=torch.float64).to(gradient.device)
        # A random direction sees about 1/sqrt(n) of an error, so that much is its yardstick.
        for direction, share in ((gradient, 1.0), (drawn, gradient.numel() ** -0.5)):
            unit = direction / direction.norm().clamp_min(1e-300)
            expected = (gradient * unit).sum().item()
            yardstick = share * max(gradient.norm().item(), least, 1e-12)
            error = _slope_error(loss, parameters[name], unit, expected, enough * yardstick)
            worst = max(worst, (error / yardstick, name))
            if worst[0] > until:
                return worst
    return worst


@torch.no_grad()
def _slope_error(loss: Callable[[], Tensor], parameter: Tensor, unit: Tensor, expected: float, enough: float) -> float:
    """Return how far the slope along a unit direction is from the expected one, at the first step size close enough.

    Where none is, at the closest one. A step across a ReLU kink jumps: at some step sizes for a true gradient, at all of
    them for a wrong one.
    """
    closest = math.inf
    for h in (1e-5, 1e-6, 1e-7):
        parameter.add_(unit, alpha=h)
        above = loss().item()
        parameter.add_(unit, alpha=-2 * h)
        below = loss().item()
        parameter.add_(unit, alpha=h)
        error = abs((above - below) / (2 * h) - expected)
        closest = min(closest, math.inf if math.isnan(error) else error)
        if closest < enough:
            break
    return closest
