"""Copying a sequence, once or several times: Graves et al. 2014, sections 4.1 and 4.2."""

from collections.abc import Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from kshot.core import Episode
from kshot.tasks.sequences import Range, Sequences, show_then_ask

__all__ = ["Copy", "RepeatCopy"]


@final
class Copy(Sequences):
    """Vectors of bits and a delimiter; then, with no input, the same vectors.

    Inputs have ``bits + 1`` features, the last for the delimiter, targets ``bits``. With the defaults the task that the
    paper trains on; it judges lengths 10, 20, 30, 50 and 120.

    Args:
        lengths: the least and the most vectors.
        bits: in a vector.
        same_length: how many consecutive tasks have the same length, so that they stack.
        seed: of the whole stream of tasks.
        length: how many tasks there are.

    >>> task = Copy(lengths=(3, 3), bits=2)[0]
    >>> task.support.x.shape, task.support.y.shape, task.query.x.shape
    (torch.Size([4, 3]), torch.Size([4, 0]), torch.Size([3, 3]))
    >>> bool((task.query.y == task.support.x[:3, :2]).all()), task.support.x[3].tolist()
    (True, [0.0, 0.0, 1.0])
    """

    name = "copy"

    def __init__(
        self, lengths: Range = (1, 20), bits: int = 8, same_length: int = 16, seed: int = 0, length: int = 1000
    ) -> None:
        super().__init__({"length": lengths}, bits, same_length, seed, length)

    def _of_sizes(self, items: NDArray[np.int64], *sizes: int) -> Episode:
        (count,) = sizes
        vectors = self._vectors(items, count)
        shown = vectors.new_zeros(len(items), count + 1, self.bits + 1)
        shown[:, :count, : self.bits] = vectors
        shown[:, count, self.bits] = 1
        return show_then_ask(shown, vectors)


@final
class RepeatCopy(Sequences):
    r"""Vectors of bits and a number of repeats; then, with no input, the vectors that many times, and an end marker.

    Inputs have ``bits + 1`` features, the last for the number of repeats, whose mean is zero and whose variance one where
    it is uniform in a range: :math:`(r - (a + b) / 2) / \sqrt{((b - a + 1)^2 - 1) / 12}`. Targets have ``bits + 1``
    features, the last for the end marker.

    Args:
        lengths: the least and the most vectors.
        repeats: the least and the most repeats.
        bits: in a vector.
        normalised_over: the range a to b by which the number of repeats is normalised: that of training, also where more
            repeats are asked for.
        same_length: how many consecutive tasks have the same length and repeats, so that they stack.
        seed: of the whole stream of tasks.
        length: how many tasks there are.

    Raises:
        ValueError: as ``Sequences``, or the range to normalise over has an odd number of numbers, or none.

    >>> task = RepeatCopy(lengths=(2, 2), repeats=(10, 10), bits=3)[0]
    >>> task.query.y.shape, round(task.support.x[2, 3].item(), 2)
    (torch.Size([21, 4]), 1.57)
    """

    name = "repeat copy"

    def __init__(
        self,
        lengths: Range = (1, 10),
        repeats: Range = (1, 10),
        bits: int = 8,
        normalised_over: Range = (1, 10),
        same_length: int = 16,
        seed: int = 0,
        length: int = 1000,
    ) -> None:
        super().__init__({"length": lengths, "repeats": repeats}, bits, same_length, seed, length)
        low, high = normalised_over
        if low >= high or (high - low) % 2 == 0:
            raise ValueError(
                f"normalised_over must be a range of an even number of numbers, of which none is shown as zero; found {low} "
                f"to {high}."
            )
        self.normalised_over = normalised_over

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these tasks."""
        low, high = self.normalised_over
        return {**super().stamp, "repeats normalised over": f"{low} to {high}"}

    def _of_sizes(self, items: NDArray[np.int64], *sizes: int) -> Episode:
        count, repeats = sizes
        vectors = self._vectors(items, count)
        shown = vectors.new_zeros(len(items), count + 1, self.bits + 1)
        shown[:, :count, : self.bits] = vectors
        low, high = self.normalised_over
        shown[:, count, self.bits] = (repeats - (low + high) / 2) / (((high - low + 1) ** 2 - 1) / 12) ** 0.5
        targets = vectors.new_zeros(len(items), repeats * count + 1, self.bits + 1)
        targets[:, :-1, : self.bits] = vectors.repeat(1, repeats, 1)
        targets[:, -1, self.bits] = 1
        return show_then_ask(shown, targets)
