"""Sine waves of unknown amplitude and phase: the standard regression tasks."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.core import Batch, Episode
from kshot.tasks.keys import uniform
from kshot.tasks.source import TaskSource
from kshot.validation import check_sizes

__all__ = ["KnownSinusoids", "Sinusoids"]

_WAVE, _SUPPORT, _QUERY = range(3)


class Sinusoids(TaskSource):
    r"""Regression tasks: a few points of one sine wave.

    .. math:: y = A \sin(x - p), \quad A \sim U[0.1, 5], \quad p \sim U[0, \pi], \quad x \sim U[-5, 5]

    Chelsea Finn, Pieter Abbeel, Sergey Levine 2017, "Model-agnostic meta-learning for fast adaptation of deep networks".

    Args:
        shots: support points.
        queries: query points.
        seed: of the whole stream of tasks.
        length: how many tasks there are.
        x_range: where the support points lie; query points cover [-5, 5].

    >>> task = Sinusoids(shots=10)[0]
    >>> task.support.x.shape, task.query.y.shape
    (torch.Size([10, 1]), torch.Size([10, 1]))
    """

    def __init__(
        self,
        shots: int = 10,
        queries: int = 10,
        seed: int = 0,
        length: int = 1000,
        x_range: tuple[float, float] = (-5.0, 5.0),
    ) -> None:
        super().__init__(seed, length)
        check_sizes(shots=shots, queries=queries)
        self.shots, self.queries, self.x_range = shots, queries, x_range

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these tasks."""
        tasks = f"{self.shots}-shot, {self.queries} queries, x in [{self.x_range[0]:g}, {self.x_range[1]:g}]"
        return {"data": "sinusoid", "tasks": tasks, "task seed": str(self.seed)}

    def waves(self, items: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return the amplitude and the phase of each task, ``(t, 1, 1)`` each."""
        drawn = torch.from_numpy(uniform(self.seed, _WAVE, items, 2)).to(torch.get_default_dtype())
        amplitude, phase = drawn[:, :, None, None].unbind(1)
        return 0.1 + 4.9 * amplitude, math.pi * phase

    def sample(self, items: NDArray[np.int64]) -> Episode:
        """Draw the tasks of these numbers, stacked."""
        amplitude, phase = self.waves(items)
        batches = []
        for stream, points, (low, high) in (
            (_SUPPORT, self.shots, self.x_range),
            (_QUERY, self.queries, (-5.0, 5.0)),
        ):
            unit = torch.from_numpy(uniform(self.seed, stream, items, points)).to(amplitude.dtype)
            x = (low + (high - low) * unit)[..., None]
            batches.append(Batch(x, amplitude * (x - phase).sin()))
        return Episode(*batches)


class KnownSinusoids(Sinusoids):
    """Sinusoids whose inputs tell the wave, (x, amplitude, phase): what the oracle of the paper sees.

    >>> KnownSinusoids(shots=10)[0].support.x.shape
    torch.Size([10, 3])
    """

    def sample(self, items: NDArray[np.int64]) -> Episode:
        """Draw the tasks of these numbers, stacked."""
        drawn, told = super().sample(items), torch.cat(self.waves(items), -1)
        return Episode(*(Batch(torch.cat([x, told.expand(-1, x.shape[1], -1)], -1), y) for x, y in drawn))
