"""What the tables of speed and memory compute: nets and step sizes of the papers, on seeded random inputs.

Time and memory do not depend on what is on a picture, so pictures are noise of the right shape and scale.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from kshot.core import Batch, Episode, one_hot
from kshot.losses import Loss, cross_entropy, mean_squared_error
from kshot.nets.conv import Conv4
from kshot.nets.mlp import MLP
from kshot.nets.norm import BatchStatisticsNorm
from kshot.tasks.sinusoid import Sinusoids

Norm: TypeAlias = Callable[[int], nn.Module]

BATCH_NORM_1D: Norm = partial(nn.BatchNorm1d, track_running_stats=False)
BATCH_NORM_2D: Norm = partial(nn.BatchNorm2d, track_running_stats=False)


@dataclass(frozen=True)
class Workload:
    """A meta-gradient to compute.

    Args:
        make: builds the net from its normalisation.
        shape: of one example.
        tasks: in a meta-batch.
        ways: classes of a task; None where the tasks are sine waves.
        shots: support examples of a class, or of a wave.
        queries: query examples of a class, or of a wave.
        steps: inner gradient steps.
        lr: their size.
        first_order: leave the inner gradient out of the meta-gradient.
        chunks: how many tasks the compiled programs take at a time; one variant for each.
        side_by_side: whether those chunks run side by side.
        torch_norm: torch's own fused layer for what ``BatchStatisticsNorm`` computes, where the net normalises.
        convolutional: whether the arithmetic is that of convolutions.
        goal: the ratio to the textbook loop to be reached.
    """

    make: Callable[[Norm], nn.Module]
    shape: tuple[int, ...]
    tasks: int
    ways: int | None = 5
    shots: int = 1
    queries: int = 1
    steps: int = 1
    lr: float = 0.4
    first_order: bool = False
    chunks: tuple[int, ...] = ()
    side_by_side: bool = False
    torch_norm: Norm | None = None
    convolutional: bool = False
    goal: float | None = None

    @property
    def loss(self) -> Loss:
        return mean_squared_error if self.ways is None else cross_entropy

    @property
    def protocol(self) -> str:
        """What is computed, in words."""
        task = f"{self.shots} points, {self.queries} queries"
        if self.ways is not None:
            of_class = "1 query" if self.queries == 1 else f"{self.queries} queries"
            task = f"{self.ways}-way {self.shots}-shot, {of_class} a class"
        steps = "1 step" if self.steps == 1 else f"{self.steps} steps"
        order = "first order" if self.first_order else "second order"
        return f"{self.tasks} tasks, {task}, {steps} of {self.lr:g}, {order}"

    def net(self, seed: int, norm: Norm = BatchStatisticsNorm) -> nn.Module:
        """Build the net; the same seed gives the same weights with any normalisation."""
        torch.manual_seed(seed)
        return self.make(norm)

    def draw(self, seed: int) -> Episode:
        """Draw a meta-batch."""
        if self.ways is None:
            return Sinusoids(self.shots, self.queries, seed).sample(np.arange(self.tasks))
        generator = torch.Generator().manual_seed(seed)
        return Episode(*(self._batch(self.ways, each, generator) for each in (self.shots, self.queries)))

    def _batch(self, ways: int, each: int, generator: torch.Generator) -> Batch:
        x = torch.rand(self.tasks, ways * each, *self.shape, generator=generator)
        return Batch(x, one_hot(torch.arange(ways).repeat_interleave(each).expand(self.tasks, -1), ways))


class Encoder(nn.Module):
    """A stock transformer encoder over tokens, their mean, and a linear layer."""

    def __init__(self, width: int, layers: int, ways: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, layers), nn.Linear(width, ways)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(1))  # type: ignore[no-any-return]


def strided(norm: Norm, ways: int = 5) -> nn.Module:
    return nn.Sequential(Conv4(1, 64, "stride", "mean", norm), nn.Linear(64, ways))


def pooled(norm: Norm) -> nn.Module:
    return nn.Sequential(Conv4(1, 64, "pool", "flatten", norm), nn.Linear(64, 5))


def mini(norm: Norm) -> nn.Module:
    return nn.Sequential(Conv4(3, 32, "pool", "flatten", norm), nn.Linear(800, 5))


def connected(norm: Norm) -> nn.Module:
    widths = (784, 256, 128, 64, 64)
    blocks = (
        nn.Sequential(nn.Linear(width, following), norm(following), nn.ReLU()) for width, following in pairwise(widths)
    )
    return nn.Sequential(nn.Flatten(), *blocks, nn.Linear(64, 5))


def waves(_: Norm) -> nn.Module:
    return MLP(1, 40, 40, 1)


def transformer(_: Norm) -> nn.Module:
    return Encoder(64, 4, 5)


_wave = partial(Workload, waves, (1,), tasks=25, ways=None, shots=10, queries=10, lr=0.01, chunks=(25,), goal=40)
_picture = partial(Workload, shape=(1, 28, 28), tasks=32, torch_norm=BATCH_NORM_2D, convolutional=True)

WORKLOADS: dict[str, Workload] = {
    "sinusoid, 1 step": _wave(),
    "sinusoid, 5 steps": _wave(steps=5),
    "omniglot strided, 1 query": _picture(strided, chunks=(8,), side_by_side=True, goal=4),
    "omniglot strided, 15 queries": _picture(strided, queries=15, chunks=(8,), goal=2),
    "omniglot strided, 20-way, 5 steps": _picture(
        partial(strided, ways=20), tasks=16, ways=20, steps=5, chunks=(2,), side_by_side=True, goal=2.5
    ),
    "omniglot pooled": _picture(pooled, chunks=(8,), goal=2.5),
    "miniimagenet, 5 steps": _picture(
        mini, shape=(3, 84, 84), tasks=4, queries=15, steps=5, lr=0.01, chunks=(1,), goal=1.5
    ),
    "omniglot fully connected": Workload(
        connected, (1, 28, 28), tasks=32, chunks=(8,), torch_norm=BATCH_NORM_1D, goal=2.5
    ),
    "transformer, 3 steps": Workload(transformer, (32, 64), tasks=16, steps=3, lr=0.1, chunks=(16,), goal=2),
    "omniglot strided, first order": _picture(strided, first_order=True, chunks=(32,), goal=3),
}
