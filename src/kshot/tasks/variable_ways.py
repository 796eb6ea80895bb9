"""Tasks of any number of classes that still stack: a meta-batch has one number of ways."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kshot.batching import unstack
from kshot.core import Episode
from kshot.tasks.augment import Augment
from kshot.tasks.episodes import Episodes
from kshot.tasks.keys import whole_number
from kshot.tasks.labelled import LabelledData
from kshot.tasks.source import TaskSource

__all__ = ["VariableWays"]

_WAYS = 1001  # a stream that ``Episodes`` does not draw from


class VariableWays(TaskSource):
    """Episodes whose number of ways is drawn evenly, one number for each group of consecutive tasks.

    A meta-batch that is a group stacks; other meta-batches are lists. The other arguments are those of ``Episodes``.

    Args:
        data: examples by class.
        ways: the fewest and the most classes of a task.
        shots: labelled support examples of each class.
        queries: query examples of each class.
        seed: of the whole stream of tasks.
        length: how many tasks there are.
        group: how many consecutive tasks have one number of ways: the size of a meta-batch.
        augment: makes new examples from those drawn.
        uneven: let classes come unequally often in the support set.

    Raises:
        ValueError: a range or the group is empty, or ``Episodes`` refuses the most ways.

    >>> import torch
    >>> data = LabelledData.from_arrays(torch.arange(60.0)[:, None], torch.arange(60) % 20)
    >>> tasks = VariableWays(data, ways=(2, 20), shots=1, queries=1, group=4)
    >>> [tasks[i].support.y.shape[1] for i in (0, 3, 4, 8)]
    [10, 10, 2, 19]
    """

    def __init__(
        self,
        data: LabelledData,
        ways: tuple[int, int],
        shots: int,
        queries: int = 15,
        seed: int = 0,
        length: int = 1000,
        *,
        group: int = 16,
        augment: Augment | None = None,
        uneven: bool = False,
    ) -> None:
        super().__init__(seed, length)
        fewest, most = ways
        if not 1 <= fewest <= most or group < 1:
            raise ValueError(
                f"ways must be (fewest, most) with 1 <= fewest <= most, and group at least 1; found {ways} and {group}."
            )
        self.ways, self.group = ways, group
        self._of = {
            count: Episodes(data, count, shots, queries, seed, length, augment=augment, uneven=uneven)
            for count in range(fewest, most + 1)
        }

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these tasks."""
        fewest, most = self.ways
        whole = self._of[most].stamp
        tasks = whole["tasks"].replace(f"{most}-way", f"{fewest}- to {most}-way", 1)
        return {**whole, "tasks": f"{tasks}, one number of ways for {self.group} consecutive tasks"}

    def sizes(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of ways of each task, ``(t,)``."""
        return whole_number(self.seed, _WAYS, items // self.group, *self.ways)

    def sample(self, items: NDArray[np.int64]) -> Episode | list[Episode]:
        """Draw the tasks of these numbers: stacked where all have as many ways, else a list."""
        sizes = self.sizes(items)
        if len(set(sizes.tolist())) == 1:
            return self._of[int(sizes[0])].sample(items)
        return [unstack(self._of[size].sample(items[i : i + 1]))[0] for i, size in enumerate(sizes.tolist())]
