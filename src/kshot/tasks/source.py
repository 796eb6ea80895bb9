"""What every source of tasks offers: a map-style Dataset whose item i depends on (seed, i) alone."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from kshot.batching import map_leaves, unstack
from kshot.core import Episode, Learner, Tasks
from kshot.validation import check_sizes

__all__ = ["TaskSource", "check_source"]


class TaskSource(Dataset[Episode]):
    """Tasks that can be drawn singly, by a DataLoader, or as stacked meta-batches.

    Args:
        seed: of the whole stream; the same seed gives the same tasks in every process and in every run.
        length: how many tasks there are for ``len``, iteration and ``batches``.
    """

    string_labels: bool = False  # labels are strings of letters, which a loss for classes would misread

    def __init__(self, seed: int, length: int) -> None:
        check_sizes(length=length)
        self.seed = seed
        self.length = length

    @abstractmethod
    def sample(self, items: NDArray[np.int64]) -> Tasks:
        """Draw the tasks of these numbers: stacked, or a list where their sizes differ."""

    @property
    @abstractmethod
    def stamp(self) -> Mapping[str, str]:
        """The protocol that these tasks follow, for the record of every result."""

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> Episode:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Sequence[int]) -> list[Episode]:
        """Draw many tasks in one vectorised gather; a DataLoader calls this."""
        if not all(0 <= item < self.length for item in items):
            raise IndexError(f"tasks are numbered 0 .. {self.length - 1}; found {min(items)} .. {max(items)}.")
        tasks = self.sample(np.asarray(items, np.int64))
        # Views of one task each: a DataLoader stacks a list, and would take a stacked Episode for a list of batches.
        return unstack(tasks) if isinstance(tasks, Episode) else list(tasks)

    def draw(self, items: NDArray[np.int64], device: torch.device | str | None = None) -> Tasks:
        """Draw the tasks of these numbers, on a device; unlike ``batches`` it knows no length."""
        tasks = self.sample(items)
        return tasks if device is None else map_leaves(lambda leaf: leaf.to(device), tasks)

    def batches(self, size: int, device: torch.device | str | None = None) -> Iterator[Tasks]:
        """Yield the tasks in order, ``size`` at a time, without the second copy that a DataLoader makes."""
        for start in range(0, self.length, size):
            yield self.draw(np.arange(start, min(start + size, self.length)), device)


def check_source(tasks: Any, learner: Learner) -> None:
    """Refuse what draws no tasks by number, such as a DataLoader or a list, and labels that the learner's loss misreads.

    Raises:
        ValueError: it is no TaskSource, or labels are strings and the loss is for classes, or the other way round.
    """
    if not isinstance(tasks, TaskSource):
        raise ValueError(
            "expected a TaskSource, such as kshot.Episodes, which draws each task by its number; found a "
            f"{type(tasks).__name__}. Give the source itself; for tasks of your own, derive from "
            "kshot.tasks.source.TaskSource."
        )
    if tasks.string_labels and not learner.loss.string_labels:
        raise ValueError(
            f"labels of these tasks are strings, and the loss of this {type(learner).__name__} is not for strings. Pass "
            "loss=kshot.losses.strings, or one of yours with Loss(…, string_labels=True)."
        )
    if learner.loss.string_labels and not tasks.string_labels:
        raise ValueError(
            f"the loss of this {type(learner).__name__} is for strings, and labels of these tasks are none. Wrap them by "
            "kshot.tasks.strings.StringLabels; a source of yours that has strings says string_labels = True."
        )
