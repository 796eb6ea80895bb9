"""A fixed number of known tasks, whose inputs tell which task they are of."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from kshot.core import Batch, Episode
from kshot.tasks.repeated import Repeated
from kshot.tasks.source import TaskSource

__all__ = ["NumberedTasks"]


class NumberedTasks(TaskSource):
    """The first tasks of a source, in their order and over and over, with inputs ``(x, number of the task)``.

    For nets that know their tasks: see ``kshot.nets.multi_task`` and ``kshot.learners.transfer.MultiTask``.

    Args:
        source: of the tasks, all of one size.
        count: how many.
        length: how many items there are; each task once by default.

    Raises:
        ValueError: count is below 1, or the source gives tasks of different sizes.

    >>> from kshot.tasks.sinusoid import Sinusoids
    >>> tasks = NumberedTasks(Sinusoids(shots=3), count=4).sample(np.array([2, 7]))
    >>> tasks.support.x[1]
    tensor([[2, 2, 2],
            [3, 3, 3]])
    """

    def __init__(self, source: TaskSource, count: int, length: int | None = None) -> None:
        super().__init__(source.seed, count if length is None else length)
        known = Repeated(source, count)
        if not isinstance(known.tasks, Episode):
            raise ValueError("NumberedTasks expects tasks of one size; the source gives a list of different ones.")
        self.count, self.tasks, self._stamp = count, known.tasks, known.stamp
        self.string_labels = source.string_labels

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of the source, and how many tasks of it are known."""
        return self._stamp

    def sample(self, items: NDArray[np.int64]) -> Episode:
        """Give the tasks of these numbers, stacked."""
        numbers = torch.from_numpy(items % self.count)
        support, query = (self._batch(batch, numbers) for batch in self.tasks)
        return Episode(support, query)

    @staticmethod
    def _batch(batch: Batch, numbers: torch.Tensor) -> Batch:
        y = batch.y[numbers]
        return Batch((batch.x[numbers], numbers[:, None].expand(y.shape[:2])), y)
