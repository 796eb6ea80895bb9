"""Minibatches of labelled examples, as tasks that have queries alone: what ordinary supervised training sees."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from kshot.core import Batch, Episode
from kshot.tasks.augment import Augment
from kshot.tasks.drawing import Drawer, Stream
from kshot.tasks.keys import random_keys, uniform
from kshot.tasks.labelled import LabelledData
from kshot.tasks.source import TaskSource

__all__ = ["Minibatches"]


class Minibatches(TaskSource):
    """Minibatches of all classes: task i has ``size`` queries, labelled with one of all classes, and no support set.

    An epoch goes once through the data in a random order; what does not fill its last minibatch is left out.

    Args:
        data: examples by class; where quarter turns are classes, each turn is a class here too.
        size: of a minibatch.
        seed: of the whole stream.
        length: how many minibatches ``len``, iteration and ``batches`` give.
        augment: makes new examples from those drawn, see ``kshot.tasks.augment``.

    Raises:
        ValueError: size is below 1, or there are fewer examples than that.

    >>> data = LabelledData.from_arrays(torch.arange(6.0)[:, None], [0, 0, 1, 1, 2, 2])
    >>> epoch = [Minibatches(data, 3)[i].query for i in range(2)]
    >>> epoch[0].x.shape, epoch[0].y.shape, torch.cat([x for x, _ in epoch]).flatten().sort().values.tolist()
    (torch.Size([3, 1]), torch.Size([3, 3]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    """

    def __init__(
        self, data: LabelledData, size: int, seed: int = 0, length: int = 1000, *, augment: Augment | None = None
    ) -> None:
        super().__init__(seed, length)
        self.data, self.size, self.augment = data, size, augment
        self.turns = 4 if data.rotations == "classes" else 1
        self.ways = len(data.classes) * self.turns
        self.examples = len(data.x) * self.turns
        if not 1 <= size <= self.examples:
            raise ValueError(f"size must lie in 1 .. {self.examples}, the number of examples; found {size}.")
        self._drawer = Drawer(data, seed, 1, False)
        self._labels = data.labels.cpu().numpy()
        self._order = lru_cache(maxsize=2)(self._draw_order)

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these minibatches."""
        augmented = {} if self.augment is None else {"augment": str(self.augment)}
        return {**self._drawer.stamp(f"minibatches of {self.size}, {self.ways} classes"), **augmented}

    def sample(self, items: NDArray[np.int64]) -> Episode:
        """Draw the minibatches of these numbers, stacked."""
        epochs, positions = np.divmod(items, self.examples // self.size)
        starts = positions * self.size
        drawn = np.stack([self._order(e)[s : s + self.size] for e, s in zip(epochs.tolist(), starts, strict=True)])
        rows, turns = np.divmod(drawn, self.turns)
        x = self._drawer.examples(rows, turns)
        if self.augment is not None:
            numbers = uniform(self.seed, Stream.AUGMENT_QUERY, items, self.size * self.augment.numbers)
            x = self.augment(x, torch.from_numpy(numbers).reshape(*x.shape[:2], -1))
        y = torch.from_numpy((self._labels[rows] * self.turns + turns)[..., None] == np.arange(self.ways))
        query = Batch(x, y.to(x.device, x.dtype))
        return Episode(Batch(x[:, :0], query.y[:, :0]), query)

    def _draw_order(self, epoch: int) -> NDArray[np.int64]:
        order: NDArray[np.int64] = random_keys(self.seed, Stream.EPOCH, np.array([epoch]), self.examples)[0].argsort()
        return order
