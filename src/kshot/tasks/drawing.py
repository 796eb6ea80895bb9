"""What all samplers of classification tasks share: drawing classes and examples, and making a batch of them."""

from collections.abc import Mapping
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.core import Batch
from kshot.tasks.keys import choose, random_keys
from kshot.tasks.labelled import LabelledData

__all__ = ["Drawer", "Stream"]

_NEVER = np.iinfo(np.uint64).max


class Stream(IntEnum):
    """One stream of random numbers for each question, so that asking one more does not change the answers to others."""

    CLASSES = 0
    EXAMPLES = 1
    SUPPORT_ORDER = 2
    QUERY_ORDER = 3
    TURNS = 4
    GROUP = 5
    WAYS = 6
    SUPPORT_SIZE = 7
    PROPORTIONS = 8
    AUGMENT_SUPPORT = 9
    AUGMENT_QUERY = 10
    EPOCH = 11


class Drawer:
    """Draws classes and examples for the tasks of given numbers; what task i gets depends on (seed, i) alone.

    Args:
        data: examples by class.
        seed: of the whole stream of tasks.
        least: the fewest classes that a task may need.
        within_groups: draw the classes of a task from one group that has at least ``least``.

    Raises:
        ValueError: there are too few classes, in one group where ``within_groups`` asks for that.

    >>> data = LabelledData.from_arrays(torch.arange(6.0)[:, None], [0, 0, 0, 1, 1, 1])
    >>> drawer = Drawer(data, seed=0, least=2, within_groups=False)
    >>> classes, turns = drawer.classes(np.arange(4), count=2)
    >>> drawer.rows(np.arange(4), classes, count=3).shape
    (4, 2, 3)
    """

    def __init__(self, data: LabelledData, seed: int, least: int, within_groups: bool) -> None:
        self.data, self.seed, self.within_groups = data, seed, within_groups
        self._turns = 4 if data.rotations == "classes" else 1
        self._order = np.argsort(data.labels.cpu().numpy(), kind="stable")
        self._starts = np.cumsum(data.sizes) - data.sizes
        self._pools = self._class_pools(least)

    def _class_pools(self, least: int) -> NDArray[np.bool_]:
        """Return ``(pools, classes)``: which classes a task may draw from, one row for each group large enough."""
        n = len(self.data.classes) * self._turns
        pools = np.ones((1, n), np.bool_)
        if self.within_groups:
            if self.data.groups is None:
                raise ValueError("within_groups needs data with groups; found none. Pass groups= to LabelledData.")
            groups = np.repeat(np.asarray(self.data.groups), self._turns)
            pools = np.stack([groups == name for name in np.unique(groups)])
        large: NDArray[np.bool_] = pools[pools.sum(1) >= least]
        if not len(large):
            of = f" in {self.data.stamp['split']}" if "split" in self.data.stamp else ""
            where = f"; found {n}{of}" if n < least else " in one group; no group has as many"
            raise ValueError(f"a task needs {least} classes{where}. Lower ways, or bring more classes.")
        return large

    def require_examples(self, least: int, reason: str, remedy: str) -> None:
        """Raise ValueError if classes have fewer than ``least`` examples; they are named, and what to do is said."""
        small = np.flatnonzero(self.data.sizes < least)
        if len(small):
            named = ", ".join(f"{self.data.classes[c]} ({self.data.sizes[c]})" for c in small[:5])
            raise ValueError(
                f"each class needs {least} examples ({reason}); {len(small)} have fewer: {named}. {remedy}"
            )

    def stamp(self, tasks: str) -> Mapping[str, str]:
        """Return the protocol of tasks of this description."""
        grouped = ", classes of one group" if self.within_groups else ""
        rotations = {} if self.data.rotations == "none" else {"rotations": self.data.rotations.replace("_", " ")}
        return {**self.data.stamp, **rotations, "tasks": tasks + grouped, "task seed": str(self.seed)}

    def available(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many classes each task may draw from."""
        counts: NDArray[np.int64] = self._pools.sum(1)[self._pool(items)]
        return counts

    def _pool(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        keys = random_keys(self.seed, Stream.GROUP, items, 1)[:, 0]
        return (keys % np.uint64(len(self._pools))).astype(np.int64)

    def classes(self, items: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ``(t, count)`` classes of each task, and the quarter turns that each of them makes."""
        keys = random_keys(self.seed, Stream.CLASSES, items, self._pools.shape[1])
        if self.within_groups:
            keys = np.where(self._pools[self._pool(items)], keys, _NEVER)
        chosen = choose(keys, count)
        return chosen // self._turns, self._draw_turns(items, chosen)

    def _draw_turns(self, items: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        match self.data.rotations:
            case "none":
                return np.zeros_like(chosen)
            case "classes":
                return chosen % 4
            case "per_class":
                return (random_keys(self.seed, Stream.TURNS, items, chosen.shape[1]) % np.uint64(4)).astype(np.int64)
            case "per_episode":
                turn = (random_keys(self.seed, Stream.TURNS, items, 1) % np.uint64(4)).astype(np.int64)
                return np.broadcast_to(turn, chosen.shape)

    def rows(self, items: NDArray[np.int64], classes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Return ``(t, classes, count)`` rows of the data, without replacement within a class.

        In a class with fewer examples than ``count`` the first rows are all of them, and the others mean nothing.
        """
        sizes = self.data.sizes[classes]
        most = int(self.data.sizes.max())  # of all classes, so that a task does not depend on the others drawn with it
        keys = random_keys(self.seed, Stream.EXAMPLES, items, classes.shape[1] * most).reshape(*classes.shape, most)
        keys = np.where(np.arange(most) < sizes[..., None], keys, _NEVER)
        return self._order.take(self._starts[classes][..., None] + choose(keys, count), mode="clip")

    def batch(
        self,
        items: NDArray[np.int64],
        order: Stream,
        ways: int,
        rows: NDArray[np.int64],
        turns: NDArray[np.int64],
        labels: NDArray[np.int64],
        *,
        keep: int | None = None,
    ) -> Batch:
        """Collect examples in a random order, so that no label can be read off a position.

        Args:
            items: the numbers of the tasks.
            order: the stream that orders the examples.
            ways: classes in a task.
            rows: ``(t, n)`` examples.
            turns: ``(t, n)`` quarter turns of each.
            labels: ``(n,)`` positions of their classes in the task, -1 for an unlabelled example.
            keep: how many of them, chosen at random; by default all.
        """
        shuffled = random_keys(self.seed, order, items, len(labels)).argsort(1)[:, :keep]
        x = self.examples(np.take_along_axis(rows, shuffled, 1), np.take_along_axis(turns, shuffled, 1))
        y = torch.from_numpy(labels[shuffled][..., None] == np.arange(ways)).to(x.device, x.dtype)
        return Batch(x, y)

    def examples(self, rows: NDArray[np.int64], turns: NDArray[np.int64]) -> Tensor:
        """Return the examples of these rows, ``(t, n, *features)``, turned, and bytes as floats in 0..1."""
        x = self._take(self.data.x, rows) if self.data.rotations == "none" else self._take_turned(rows, turns)
        x = x.reshape(*rows.shape, *x.shape[1:])
        return x.to(torch.get_default_dtype()).div_(255) if x.dtype == torch.uint8 else x

    def _take_turned(self, rows: NDArray[np.int64], turns: NDArray[np.int64]) -> Tensor:
        # In order of their turns, so that each turn is one block that needs no gathering.
        order = turns.argsort(axis=None)
        x = self._take(self.data.x, rows.reshape(-1)[order])
        ends = np.cumsum(np.bincount(turns.reshape(-1), minlength=4)).tolist()
        for turn in range(1, 4):
            block = x[ends[turn - 1] : ends[turn]]
            block.copy_(block.rot90(turn, (-2, -1)))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return self._take(x, back)

    @staticmethod
    def _take(x: Tensor, rows: NDArray[np.int64]) -> Tensor:
        # Far faster than x[rows] for bytes.
        return x.index_select(0, torch.from_numpy(rows.reshape(-1)).to(x.device))
