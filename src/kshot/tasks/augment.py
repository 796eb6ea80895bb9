"""New pictures from old ones: changes that keep the class."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Augment", "Chain", "Crops", "Distortions"]


@runtime_checkable
class Augment(Protocol):
    """Maps examples ``(t, n, *features)`` and uniform numbers ``(t, n, numbers)`` in [0, 1) to new examples."""

    @property
    def numbers(self) -> int:
        """How many uniform numbers it needs for each example."""

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Return new examples of the same shape."""


@dataclass(frozen=True)
class Distortions:
    """Small affine distortions, another one for each picture.

    Gregory Koch, Richard Zemel, Ruslan Salakhutdinov 2015, "Siamese neural networks for one-shot image recognition": each
    of the seven components takes part with probability one half.

    Args:
        degrees: largest rotation either way.
        shear: largest shear along either axis.
        scale: largest relative change of size along either axis.
        shift: largest move along either axis, as a share of the side.
        probability: of each component.

    >>> x = torch.rand(2, 3, 1, 28, 28)
    >>> Distortions()(x, torch.full((2, 3, 14), 0.9)).allclose(x, atol=1e-5)  # 0.9: no component takes part
    True
    """

    degrees: float = 10.0
    shear: float = 0.3
    scale: float = 0.2
    shift: float = 0.07
    probability: float = 0.5

    @property
    def numbers(self) -> int:
        """Two for each component: whether, and how much."""
        return 14

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Distort pictures ``(t, n, channels, height, width)``; the border is continued outwards."""
        happens, amount = u.flatten(0, 1).to(x.device, x.dtype).chunk(2, -1)
        amount = (2 * amount - 1) * (happens < self.probability)
        turn = amount[:, 0] * math.radians(self.degrees)
        shear_x, shear_y = (self.shear * amount[:, 1:3]).unbind(1)
        scale_x, scale_y = (1 + self.scale * amount[:, 3:5]).unbind(1)
        shift = 2 * self.shift * amount[:, 5:7]  # grid coordinates run from -1 to 1
        rotation = _matrix(turn.cos(), -turn.sin(), turn.sin(), turn.cos())
        one, zero = torch.ones_like(turn), torch.zeros_like(turn)
        linear = rotation @ _matrix(one, shear_x, shear_y, one) @ _matrix(scale_x, zero, zero, scale_y)
        return _resampled(x, linear, shift)


@dataclass(frozen=True)
class Crops:
    """A random window of each picture, brought back to its size, and mirrored where asked for.

    Christian Szegedy et al. 2015, "Going deeper with convolutions"; with its large range it is what SimCLR (Ting Chen et
    al. 2020) learns most from.

    Args:
        least: smallest share of the area that a window has; the largest is all of it.
        stretch: largest ratio of a window's sides, in either direction.
        mirror: whether half of the windows are mirrored left to right.

    Raises:
        ValueError: least lies outside 0..1 or stretch is below 1.

    >>> x = torch.rand(2, 3, 1, 28, 28)
    >>> Crops(least=1.0, stretch=1.0)(x, torch.rand(2, 3, 5)).allclose(x, atol=1e-5)
    True
    """

    least: float = 0.3
    stretch: float = 4 / 3
    mirror: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.least <= 1 or self.stretch < 1:
            raise ValueError(
                f"Crops expects least in 0..1 and stretch of at least 1; found {self.least} and {self.stretch}."
            )

    @property
    def numbers(self) -> int:
        """The area, the ratio of sides, the place, and whether it is mirrored."""
        return 5

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Crop pictures ``(t, n, channels, height, width)``."""
        area, ratio, across, down, turned = u.flatten(0, 1).to(x.device, x.dtype).unbind(-1)
        side = (self.least + (1 - self.least) * area).sqrt()
        root = self.stretch ** (ratio - 0.5)
        width, height = (side * root).clamp_max(1), (side / root).clamp_max(1)
        centre = torch.stack([(1 - width) * (2 * across - 1), (1 - height) * (2 * down - 1)], 1)
        sign = torch.where(turned < 0.5, -1.0, 1.0) if self.mirror else torch.ones_like(turned)
        zero = torch.zeros_like(width)
        linear = _matrix(sign.to(x.dtype) * width, zero, zero, height)
        return _resampled(x, linear, centre)


@dataclass(frozen=True)
class Chain:
    """One change after another.

    Args:
        changes: each maps what the one before it returned.

    >>> Chain((Crops(), Distortions())).numbers
    19
    """

    changes: tuple[Augment, ...]

    @property
    def numbers(self) -> int:
        """As many as all of them need."""
        return sum(change.numbers for change in self.changes)

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Return new examples of the same shape."""
        start = 0
        for change in self.changes:
            x = change(x, u[..., start : start + change.numbers])
            start += change.numbers
        return x


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -2)


def _resampled(x: Tensor, linear: Tensor, shift: Tensor) -> Tensor:
    """Read pictures ``(t, n, channels, height, width)`` off where a linear map and a shift place their points."""
    grid = F.affine_grid(torch.cat([linear, shift[:, :, None]], 2), list(x.flatten(0, 1).shape), align_corners=False)
    return F.grid_sample(x.flatten(0, 1), grid, padding_mode="border", align_corners=False).reshape(x.shape)
