"""A finite number of tasks, over and over."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kshot.batching import map_leaves
from kshot.core import Episode, Tasks
from kshot.tasks.keys import choose, random_keys
from kshot.tasks.source import TaskSource
from kshot.validation import check_sizes

__all__ = ["Repeated"]

_ORDER = 1 << 32  # the stream of random numbers: no source has it


class Repeated(TaskSource):
    """The first tasks of a source, each time through in another order; they are drawn once and kept in memory.

    Item i is one of the tasks 0 to ``count - 1`` of the source, and any ``count`` items from a multiple of ``count`` on are
    all of them.

    Args:
        source: of the tasks.
        count: how many.
        length: how many items there are; the tasks once by default.

    Raises:
        ValueError: count is below 1.

    >>> from kshot.tasks.sinusoid import Sinusoids
    >>> once = Repeated(Sinusoids(), 3).sample(np.arange(3)).support.x.mean(1)
    >>> again = Repeated(Sinusoids(), 3).sample(np.arange(3, 6)).support.x.mean(1)
    >>> bool((once.sort(0).values == again.sort(0).values).all())
    True
    """

    def __init__(self, source: TaskSource, count: int, length: int | None = None) -> None:
        check_sizes(count=count)
        super().__init__(source.seed, count if length is None else length)
        self.source, self.count, self.string_labels = source, count, source.string_labels
        self.tasks = source.sample(np.arange(count))

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of the source, and how many tasks of it there are."""
        return {**self.source.stamp, "distinct tasks": str(self.count)}

    def sample(self, items: NDArray[np.int64]) -> Tasks:
        """Give the tasks of these numbers: stacked, or a list where the source gives one."""
        rounds, positions = np.divmod(items, self.count)
        distinct, which = np.unique(rounds, return_inverse=True)
        orders = choose(random_keys(self.seed, _ORDER, distinct, self.count), self.count)
        chosen = orders[which, positions]
        if isinstance(self.tasks, Episode):
            return map_leaves(lambda leaf: leaf[chosen], self.tasks)
        return [self.tasks[i] for i in chosen]
