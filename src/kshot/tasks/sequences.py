"""Sequences of bits that a learner is shown and then asked about, made on the fly.

All are of Alex Graves, Greg Wayne, Ivo Danihelka 2014, "Neural Turing machines", section 4. The support set is what is
shown, in order and without targets (y has zero columns); the queries are the steps that are answered, in order too.
"""

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.batching import unstack
from kshot.core import Batch, Episode, Tasks
from kshot.tasks.keys import random_keys, uniform
from kshot.tasks.source import TaskSource
from kshot.validation import check_sizes

__all__ = ["BITS", "Range", "Sequences", "floats", "show_then_ask"]

_SIZE, BITS = 0, 1  # streams of random numbers; those of subclasses begin at 2

Range = tuple[int, int]


class Sequences(TaskSource):
    """Tasks whose sizes are drawn from ranges, the same ones for a run of consecutive tasks; abstract.

    Args:
        ranges: the smallest and the largest value of each size by its name, both included.
        bits: in a vector.
        same_length: how many consecutive tasks have the same sizes, so that they stack.
        seed: of the whole stream of tasks.
        length: how many tasks there are.

    Raises:
        ValueError: a range is empty or starts below 1, or a number is below 1.
    """

    def __init__(self, ranges: Mapping[str, Range], bits: int, same_length: int, seed: int, length: int) -> None:
        super().__init__(seed, length)
        for name, (low, high) in ranges.items():
            if not 1 <= low <= high:
                raise ValueError(f"{name} must be (least, most) with 1 <= least <= most; found {(low, high)}.")
        check_sizes(bits=bits, same_length=same_length)
        self.ranges, self.bits, self.same_length = ranges, bits, same_length

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these tasks."""
        spans = (f"{name} {low}" + (f" to {high}" if high > low else "") for name, (low, high) in self.ranges.items())
        tasks = ", ".join((*spans, f"{self.bits} bits", f"{self.same_length} of one size in a row"))
        return {"data": self.name, "tasks": tasks, "task seed": str(self.seed)}

    @property
    @abstractmethod
    def name(self) -> str:
        """What the tasks are called."""

    @abstractmethod
    def _of_sizes(self, items: NDArray[np.int64], *sizes: int) -> Episode:
        """Draw the tasks of these numbers, all of the same sizes, stacked."""

    def sizes(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes of each task, ``(t, ranges)``."""
        low, high = np.array(list(self.ranges.values())).T
        drawn = uniform(self.seed, _SIZE, items // self.same_length, len(low))
        sizes: NDArray[np.int64] = low + (drawn * (high - low + 1)).astype(np.int64)
        return sizes

    def sample(self, items: NDArray[np.int64]) -> Tasks:
        """Draw the tasks of these numbers: stacked where their sizes are the same, else a list."""
        sizes = self.sizes(items)
        if (sizes == sizes[:1]).all():
            return self._of_sizes(items, *sizes[0].tolist())
        pairs = zip(items[:, None], sizes.tolist(), strict=True)
        return [unstack(self._of_sizes(item, *of_item))[0] for item, of_item in pairs]

    def _vectors(self, items: NDArray[np.int64], count: int) -> Float[Tensor, "t count bits"]:
        """Draw random vectors of bits."""
        drawn = random_keys(self.seed, BITS, items, count * self.bits) >> np.uint64(63)
        return floats(drawn).reshape(-1, count, self.bits)


def floats(numbers: NDArray[np.generic]) -> Tensor:
    """Return numbers in torch's default type."""
    return torch.from_numpy(numbers.astype(np.float64)).to(torch.get_default_dtype())


def show_then_ask(shown: Tensor, targets: Tensor) -> Episode:
    """Show inputs without targets, then ask for targets without inputs."""
    blank = shown.new_zeros(*targets.shape[:2], shown.shape[-1])
    return Episode(Batch(shown, shown[..., :0]), Batch(blank, targets))
