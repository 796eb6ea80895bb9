"""Classes that are told by a string of characters instead of a one-hot row, so that their number is not built in."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.core import Batch, Episode
from kshot.losses import LETTERS
from kshot.tasks.episodes import Episodes
from kshot.tasks.keys import choose, random_keys
from kshot.tasks.source import TaskSource
from kshot.tasks.variable_ways import VariableWays

__all__ = ["LENGTH", "StringLabels"]

LENGTH = 5  # of a string, unless said otherwise

# Streams of random numbers that no other source draws from.
_STRINGS = 1_002
_DEALT = 1_003


class StringLabels(TaskSource):
    """The same tasks, where each class has a random string: ``y`` is ``(n, length * 5)``, one-hot by character.

    Adam Santoro et al. 2016, "Meta-learning with memory-augmented neural networks", section 4.1: five characters of five
    letters, 3,125 labels. Judge them by ``kshot.losses.strings``.

    Args:
        tasks: with one-hot labels, of one number of classes or of any.
        characters: of a string.
        dealt: deal letters to every five classes, one each at every place, so that none is frequent and a learner cannot
            guess by counting. Classes of different fives then have the same string once in ``5**characters`` times.

    Raises:
        ValueError: there are fewer strings than ways.

    >>> from kshot.tasks.labelled import LabelledData
    >>> data = LabelledData.from_arrays(torch.arange(12.0)[:, None], [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    >>> task = StringLabels(Episodes(data, ways=3, shots=1, queries=2))[0]
    >>> task.support.y.shape, task.support.y.reshape(3, 5, 5).sum(-1).unique()
    (torch.Size([3, 25]), tensor([1.]))
    """

    string_labels = True

    def __init__(self, tasks: Episodes | VariableWays, characters: int = LENGTH, *, dealt: bool = False) -> None:
        super().__init__(tasks.seed, tasks.length)
        self.tasks, self.characters, self.dealt = tasks, characters, dealt
        self._most = tasks.ways if isinstance(tasks, Episodes) else tasks.ways[1]
        if LETTERS**characters < self._most:
            raise ValueError(
                f"{characters} characters of {LETTERS} letters make {LETTERS**characters} strings; found {self._most} ways. "
                "Raise characters."
            )

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these tasks."""
        dealt = ", dealt evenly" if self.dealt else ""
        return {**self.tasks.stamp, "labels": f"strings of {self.characters} out of {LETTERS} letters{dealt}"}

    def sample(self, items: NDArray[np.int64]) -> Episode | list[Episode]:
        """Draw the tasks of these numbers: stacked where all have as many ways, else a list."""
        digits = torch.from_numpy(self._deal(items) if self.dealt else self._draw(items))
        strings = torch.nn.functional.one_hot(digits, LETTERS).flatten(-2)  # of each task, for the most ways
        drawn = self.tasks.sample(items)
        if isinstance(drawn, Episode):
            return _told(drawn, strings)
        return [_told(task, own) for task, own in zip(drawn, strings, strict=True)]

    def _draw(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw strings ``(t, most ways, characters)``, all different."""
        chosen = choose(random_keys(self.seed, _STRINGS, items, LETTERS**self.characters), self._most)
        return chosen[..., None] // LETTERS ** np.arange(self.characters) % LETTERS

    def _deal(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Deal strings ``(t, most ways, characters)``, all letters to every five classes."""
        shape = len(items), -(-self._most // LETTERS), self.characters, LETTERS
        dealt = random_keys(self.seed, _DEALT, items, math.prod(shape[1:])).reshape(shape).argsort(-1)
        return dealt.swapaxes(-2, -1).reshape(len(items), -1, self.characters)[:, : self._most]


def _told(tasks: Episode, strings: Tensor) -> Episode:
    return Episode(*(Batch(x, y @ strings[..., : y.shape[-1], :].to(y)) for x, y in tasks))
