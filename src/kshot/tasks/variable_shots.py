"""Support sets of any size: a source of tasks whose support sets are cut short."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kshot.batching import map_leaves, unstack
from kshot.core import Batch, Episode
from kshot.tasks.keys import whole_number
from kshot.tasks.source import TaskSource

__all__ = ["VariableShots"]

_SHOTS = 1000  # a stream that no source draws from


class VariableShots(TaskSource):
    """The tasks of another source, of whose support sets only the first n examples are kept, n drawn evenly.

    All tasks of a group have one n, so that a meta-batch that is a group stacks; other meta-batches are lists. For sources
    whose support examples come in no order, as points of a function do: it does not balance classes.

    Args:
        source: of stacked tasks, with support sets of ``shots[1]`` examples or more.
        shots: the fewest and the most examples that are kept.
        group: how many consecutive tasks have one n: the size of a meta-batch.

    Raises:
        ValueError: the range or the group is empty, or the source's support sets are too small or of several sizes; where
            its first task does not show it, when such tasks are drawn.

    >>> from kshot.tasks.sinusoid import Sinusoids
    >>> tasks = VariableShots(Sinusoids(shots=10), shots=(0, 10), group=16)
    >>> [len(tasks[i].support.y) for i in (0, 15, 16, 32)]
    [3, 3, 4, 1]
    """

    def __init__(self, source: TaskSource, shots: tuple[int, int], group: int = 16) -> None:
        super().__init__(source.seed, source.length)
        if not 0 <= shots[0] <= shots[1] or group < 1:
            raise ValueError(
                f"shots must be (fewest, most) with 0 <= fewest <= most, and group at least 1; found {shots} and {group}."
            )
        self.source, self.shots, self.group = source, shots, group
        self.string_labels = source.string_labels
        self._whole(np.zeros(1, np.int64))

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these tasks."""
        fewest, most = self.shots
        drawn = f"{fewest}" if fewest == most else f"{fewest} to {most}, one number for {self.group} consecutive tasks"
        return {**self.source.stamp, "support examples kept": f"the first {drawn}"}

    def sizes(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many support examples each task keeps, ``(t,)``."""
        return whole_number(self.seed, _SHOTS, items // self.group, *self.shots)

    def sample(self, items: NDArray[np.int64]) -> Episode | list[Episode]:
        """Draw the tasks of these numbers: stacked where all keep as many, else a list."""
        tasks, sizes = self._whole(items), self.sizes(items)
        if len(set(sizes.tolist())) == 1:
            kept = map_leaves(lambda leaf: leaf[:, : sizes[0]], tasks.support)
            return Episode(Batch(*kept), tasks.query)
        return [_first(task, size) for task, size in zip(unstack(tasks), sizes.tolist(), strict=True)]

    def _whole(self, items: NDArray[np.int64]) -> Episode:
        tasks, most = self.source.sample(items), self.shots[1]
        if isinstance(tasks, Episode) and tasks.support.y.shape[1] >= most:
            return tasks
        found = f"{tasks.support.y.shape[1]} examples" if isinstance(tasks, Episode) else "tasks of several sizes"
        raise ValueError(
            f"VariableShots needs stacked tasks with at least {most} support examples; found {found}. "
            f"Give the source shots={most}, the same for all tasks."
        )


def _first(task: Episode, size: int) -> Episode:
    return Episode(Batch(*map_leaves(lambda leaf: leaf[:size], task.support)), task.query)
