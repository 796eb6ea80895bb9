"""Functions drawn from a Gaussian process: regression tasks whose best possible prediction is known."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.core import Batch, Episode
from kshot.tasks.keys import normal, uniform
from kshot.tasks.source import TaskSource

__all__ = ["RBF", "GaussianProcesses", "Kernel", "Matern52", "Periodic"]

# Maps the differences of inputs, (t, n, m, inputs), and the length scale of each task, (t, 1, 1), to (t, n, m).
Kernel: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_Range: TypeAlias = float | tuple[float, float]

_SCALES, _INPUTS, _OUTPUTS = range(3)
_LEAST_NOISE = 1e-4  # with less, a covariance of many near points has no Cholesky factor in float64


@dataclass(frozen=True)
class RBF:
    r"""Smooth functions: :math:`k(d) = \exp(-\lVert d \rVert^2 / 2 l^2)`.

    >>> round(RBF()(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1)).item(), 4)
    0.6065
    """

    def __call__(
        self, differences: Float[Tensor, "t n m inputs"], length_scale: Float[Tensor, "t 1 1"]
    ) -> Float[Tensor, "t n m"]:
        """Return the correlations."""
        return (-differences.square().sum(-1) / length_scale.square() / 2).exp()


@dataclass(frozen=True)
class Matern52:
    r"""Rougher functions: :math:`k(d) = (1 + r + r^2 / 3)\, e^{-r}` with :math:`r = \sqrt5\, \lVert d \rVert / l`.

    >>> round(Matern52()(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1)).item(), 4)
    0.524
    """

    def __call__(
        self, differences: Float[Tensor, "t n m inputs"], length_scale: Float[Tensor, "t 1 1"]
    ) -> Float[Tensor, "t n m"]:
        """Return the correlations."""
        r = math.sqrt(5) * differences.norm(dim=-1) / length_scale
        correlations: Tensor = (1 + r + r.square() / 3) * (-r).exp()
        return correlations


@dataclass(frozen=True)
class Periodic:
    r"""Functions that return: :math:`k(d) = \exp(-2 \sum_j \sin^2(\pi d_j / p) / l^2)`, of period p in every input.

    >>> round(Periodic(4.0)(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1)).item(), 4)
    0.3679
    """

    period: float = 1.0

    def __call__(
        self, differences: Float[Tensor, "t n m inputs"], length_scale: Float[Tensor, "t 1 1"]
    ) -> Float[Tensor, "t n m"]:
        """Return the correlations."""
        return (-2 * (math.pi * differences / self.period).sin().square().sum(-1) / length_scale.square()).exp()


class GaussianProcesses(TaskSource):
    r"""Regression tasks: a few noisy points of one function that a Gaussian process draws.

    .. math:: y \sim \mathcal{N}(0,\; a^2 k(x - x') + \sigma^2 I), \quad x \sim U

    Length scale and amplitude of a task are drawn too where they are given as ranges. Tasks of more shots are those of fewer
    with support points added. ``exact`` gives the prediction that, over many tasks, none beats.

    The regression tasks of Marta Garnelo et al. 2018, "Conditional neural processes", whose length scale and amplitude are
    fixed, and of Hyunjik Kim et al. 2019, "Attentive neural processes", which draws them as well.

    Args:
        kernel: ``RBF()``, ``Matern52()``, ``Periodic(period)``, or any function of differences and length scale.
        shots: support points, which may be none.
        queries: query points.
        seed: of the whole stream of tasks.
        length: how many tasks there are.
        length_scale: l, or the range that it is drawn from, evenly.
        amplitude: a, or the range that it is drawn from.
        noise: the deviation of the noise on every point; 0.0001 at the least.
        inputs: how many numbers an input has.
        x_range: where each of them lies.

    Raises:
        ValueError: a number is too small, or a range is empty.

    >>> task = GaussianProcesses(shots=3, queries=20)[0]
    >>> task.support.x.shape, task.query.y.shape
    (torch.Size([3, 1]), torch.Size([20, 1]))
    """

    def __init__(
        self,
        kernel: Kernel | None = None,
        shots: int = 10,
        queries: int = 50,
        seed: int = 0,
        length: int = 1000,
        *,
        length_scale: _Range = 0.4,
        amplitude: _Range = 1.0,
        noise: float = 0.02,
        inputs: int = 1,
        x_range: tuple[float, float] = (-2.0, 2.0),
    ) -> None:
        super().__init__(seed, length)
        if shots < 0 or queries < 1 or inputs < 1:
            raise ValueError(
                f"shots must be at least 0, queries and inputs at least 1; found {shots}, {queries} and {inputs}."
            )
        if x_range[0] >= x_range[1]:
            raise ValueError(f"x_range must be (least, most), the first below the second; found {x_range}.")
        if noise < _LEAST_NOISE:
            raise ValueError(f"noise must be at least {_LEAST_NOISE}; found {noise}.")
        self.kernel: Kernel = RBF() if kernel is None else kernel
        self.shots, self.queries, self.inputs, self.noise, self.x_range = shots, queries, inputs, noise, x_range
        self.length_scale, self.amplitude = _range("length_scale", length_scale), _range("amplitude", amplitude)

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these tasks."""
        where = f"x in [{self.x_range[0]:g}, {self.x_range[1]:g}]" + (f"^{self.inputs}" if self.inputs > 1 else "")
        return {
            "data": f"Gaussian processes, {self.kernel}",
            "tasks": f"{self.shots}-shot, {self.queries} queries, {where}",
            "length scale": _shown(self.length_scale),
            "amplitude": _shown(self.amplitude),
            "noise": f"{self.noise:g}",
            "task seed": str(self.seed),
        }

    def scales(self, items: NDArray[np.int64]) -> tuple[Float[Tensor, "t 1 1"], Float[Tensor, "t 1 1"]]:
        """Return the length scale and the amplitude of each task, ``(t, 1, 1)`` each, in float64."""
        drawn = torch.from_numpy(uniform(self.seed, _SCALES, items, 2))[:, :, None, None].unbind(1)
        ranges = (self.length_scale, self.amplitude)
        length_scale, amplitude = (low + (high - low) * unit for unit, (low, high) in zip(drawn, ranges, strict=True))
        return length_scale, amplitude

    def sample(self, items: NDArray[np.int64]) -> Episode:
        """Draw the tasks of these numbers, stacked."""
        points = self.queries + self.shots
        low, high = self.x_range
        unit = torch.from_numpy(uniform(self.seed, _INPUTS, items, points * self.inputs))
        x = low + (high - low) * unit.reshape(len(items), points, self.inputs)
        factor = torch.linalg.cholesky(self._covariance(x, x, items) + self._noise(points))
        y = factor @ torch.from_numpy(normal(self.seed, _OUTPUTS, items, points))[..., None]
        x, y = (drawn.to(torch.get_default_dtype()) for drawn in (x, y))
        # Queries come first: the factor is triangular, so that further support points change nothing before them.
        return Episode(
            Batch(x[:, self.queries :], y[:, self.queries :]), Batch(x[:, : self.queries], y[:, : self.queries])
        )

    def exact(self, tasks: Episode, items: NDArray[np.int64]) -> Float[Tensor, "t q 2"]:
        r"""Return what is best to predict, for one who knows kernel and noise: the posterior of each query alone.

        .. math::
            \mu = k_x^\top (K + \sigma^2 I)^{-1} y, \qquad
            s^2 = a^2 k(0) + \sigma^2 - k_x^\top (K + \sigma^2 I)^{-1} k_x

        Args:
            tasks: stacked tasks of these numbers; their support sets may be cut short, and their queries be anywhere.
            items: the numbers.

        Returns:
            Mean and logarithm of the deviation, as ``kshot.losses.gaussian_log_likelihood`` takes them, in float64.
        """
        (x, y), (query, _) = (Batch(batch.x.double(), batch.y.double()) for batch in tasks)
        factor = torch.linalg.cholesky(self._covariance(x, x, items) + self._noise(x.shape[1]))
        across = self._covariance(x, query, items)
        white = torch.linalg.solve_triangular(factor, torch.cat([y, across], -1), upper=False)
        mean = white[..., 1:].mT @ white[..., :1]
        prior = self._covariance(query[:, :1], query[:, :1], items)
        variance = prior - white[..., 1:].square().sum(1)[..., None] + self.noise**2
        return torch.cat([mean, variance.log() / 2], -1)

    def _covariance(
        self, x: Float[Tensor, "t n inputs"], y: Float[Tensor, "t m inputs"], items: NDArray[np.int64]
    ) -> Float[Tensor, "t n m"]:
        length_scale, amplitude = self.scales(items)
        return amplitude.square() * self.kernel(x[:, :, None] - y[:, None], length_scale)

    def _noise(self, points: int) -> Float[Tensor, "n n"]:
        return self.noise**2 * torch.eye(points, dtype=torch.float64)


def _range(name: str, given: _Range) -> tuple[float, float]:
    low, high = given if isinstance(given, tuple) else (given, given)
    if not 0 < low <= high:
        raise ValueError(f"{name} must be above zero, a number or (least, most); found {given}.")
    return low, high


def _shown(bounds: tuple[float, float]) -> str:
    low, high = bounds
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
