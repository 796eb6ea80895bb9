"""Vectors in the order of their priorities: Graves et al. 2014, section 4.5."""

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from kshot.core import Episode
from kshot.tasks.keys import choose, random_keys
from kshot.tasks.sequences import Sequences, floats, show_then_ask

__all__ = ["PrioritySort"]

_CHOICE = 2  # a stream of random numbers


@final
class PrioritySort(Sequences):
    """Vectors of bits, each with a priority, and a delimiter; then, with no input, the vectors of the highest priorities.

    Inputs have ``bits + 2`` features, the first of the two further ones for the priority, uniform between -1 and 1, the
    last for the delimiter. Targets are ``bits`` features, the highest priority first.

    Args:
        vectors: that are shown.
        kept: how many of them are asked for.
        bits: in a vector.
        seed: of the whole stream of tasks.
        length: how many tasks there are.

    Raises:
        ValueError: as ``Sequences``, or more vectors are asked for than are shown.

    >>> task = PrioritySort(vectors=3, kept=1, bits=2)[0]
    >>> bool((task.query.y[0] == task.support.x[task.support.x[:3, 2].argmax(), :2]).all())
    True
    """

    name = "priority sort"

    def __init__(self, vectors: int = 20, kept: int = 16, bits: int = 8, seed: int = 0, length: int = 1000) -> None:
        super().__init__({"vectors": (vectors, vectors), "sorted": (kept, kept)}, bits, 1, seed, length)
        if kept > vectors:
            raise ValueError(f"kept must be at most the {vectors} vectors that are shown; found {kept}.")

    def _of_sizes(self, items: NDArray[np.int64], *sizes: int) -> Episode:
        count, kept = sizes
        vectors = self._vectors(items, count)
        keys = random_keys(self.seed, _CHOICE, items, count)
        shown = vectors.new_zeros(len(items), count + 1, self.bits + 2)
        shown[:, :count, : self.bits] = vectors
        shown[:, :count, self.bits] = floats(1 - 2 * (keys.astype(np.float64) * 2.0**-64))
        shown[:, count, self.bits + 1] = 1
        first = torch.from_numpy(choose(keys, kept))  # the smallest key is the highest priority
        return show_then_ask(shown, vectors.gather(1, first[..., None].expand(-1, -1, self.bits)))
