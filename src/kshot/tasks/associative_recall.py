"""What came after an item that is shown again: Graves et al. 2014, section 4.3."""

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from kshot.core import Episode
from kshot.tasks.keys import whole_number
from kshot.tasks.sequences import Range, Sequences, show_then_ask

__all__ = ["AssociativeRecall"]

_CHOICE = 2  # a stream of random numbers


@final
class AssociativeRecall(Sequences):
    """Items of a few vectors of bits, one of them again; then, with no input, the item that came after it.

    Inputs have ``bits + 2`` features: the first of the two further ones is a delimiter before each item, the second one
    on both sides of the item that is asked about. Targets have ``bits`` features.

    Args:
        items: the fewest and the most items.
        vectors: in an item.
        bits: in a vector.
        same_length: how many consecutive tasks have the same number of items, so that they stack.
        seed: of the whole stream of tasks.
        length: how many tasks there are.

    Raises:
        ValueError: as ``Sequences``, or there may be fewer than two items.

    >>> task = AssociativeRecall(items=(2, 2))[0]
    >>> task.support.x.shape, task.query.y.shape
    (torch.Size([13, 8]), torch.Size([3, 6]))
    >>> bool((task.support.x[9:12, :6] == task.support.x[1:4, :6]).all() and (task.query.y == task.support.x[5:8, :6]).all())
    True
    """

    name = "associative recall"

    def __init__(
        self,
        items: Range = (2, 6),
        vectors: int = 3,
        bits: int = 6,
        same_length: int = 16,
        seed: int = 0,
        length: int = 1000,
    ) -> None:
        super().__init__({"items": items, "vectors": (vectors, vectors)}, bits, same_length, seed, length)
        if items[0] < 2:
            raise ValueError(f"items must be at least 2, one to ask about and the one after it; found {items}.")

    def _of_sizes(self, items: NDArray[np.int64], *sizes: int) -> Episode:
        count, each = sizes
        shown = self._vectors(items, count * each).reshape(-1, count, each, self.bits)
        asked = whole_number(self.seed, _CHOICE, items, 0, count - 2)
        tasks, cue = torch.arange(len(items)), torch.from_numpy(asked)
        blocks = shown.new_zeros(len(items), count + 1, each + 1, self.bits + 2)
        blocks[:, :count, 1:, : self.bits] = shown
        blocks[:, count, 1:, : self.bits] = shown[tasks, cue]
        blocks[:, :count, 0, self.bits] = 1
        blocks[:, count, 0, self.bits + 1] = 1
        end = shown.new_zeros(len(items), 1, self.bits + 2)
        end[..., self.bits + 1] = 1
        return show_then_ask(torch.cat([blocks.flatten(1, 2), end], 1), shown[tasks, cue + 1])
