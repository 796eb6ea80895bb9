"""N-way K-shot tasks over any labelled data."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.core import Batch, Episode
from kshot.tasks.keys import choose, random_keys
from kshot.tasks.labelled import LabelledData
from kshot.tasks.source import TaskSource

__all__ = ["Episodes"]

# One stream of random numbers for each question, so that asking one more does not change the answers to the others.
_CLASSES, _EXAMPLES, _SUPPORT_ORDER, _QUERY_ORDER, _TURNS, _GROUP = range(6)
_NEVER = np.iinfo(np.uint64).max


class Episodes(TaskSource):
    """Tasks of ``ways`` classes with ``shots`` labelled examples each, and ``queries`` of each class to answer.

    Classes, examples and their order are drawn at random; item i depends on (seed, i) alone.

    Args:
        data: examples by class.
        ways: classes in a task.
        shots: labelled support examples of each class.
        queries: query examples of each class.
        seed: of the whole stream of tasks.
        length: how many tasks ``len``, iteration and ``batches`` give.
        within_groups: draw the classes of a task from one group (one alphabet, say).
        unlabelled: support examples of each class, distractors included, whose row of y is all zero.
        distractors: classes beside ``ways`` that appear only as unlabelled support examples.
        augment: maps pictures ``(t, n, *features)`` of the support set or the query set to new ones.

    Raises:
        ValueError: too few classes, or a class with too few examples, which is named.

    >>> data = LabelledData.from_arrays(torch.arange(12.0)[:, None], [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    >>> task = Episodes(data, ways=2, shots=1, queries=2)[0]
    >>> task.support.x.shape, task.query.y.shape
    (torch.Size([2, 1]), torch.Size([4, 2]))
    """

    def __init__(
        self,
        data: LabelledData,
        ways: int,
        shots: int,
        queries: int = 15,
        seed: int = 0,
        length: int = 1000,
        *,
        within_groups: bool = False,
        unlabelled: int = 0,
        distractors: int = 0,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(seed, length)
        self.data, self.ways, self.shots, self.queries = data, ways, shots, queries
        self.unlabelled, self.distractors, self.augment = unlabelled, distractors, augment
        self.within_groups = within_groups
        self._turns = 4 if data.rotations == "classes" else 1
        self._order = np.argsort(data.labels.cpu().numpy(), kind="stable")
        self._starts = np.cumsum(data.sizes) - data.sizes
        self._pools = self._class_pools()
        self._check()

    def _class_pools(self) -> NDArray[np.bool_]:
        """Return ``(pools, classes)``: which classes a task may draw from, one row for each group large enough."""
        n = len(self.data.classes) * self._turns
        if not self.within_groups:
            return np.ones((1, n), np.bool_)
        if self.data.groups is None:
            raise ValueError("within_groups needs data with groups; found none. Pass groups= to LabelledData.")
        groups = np.repeat(np.asarray(self.data.groups), self._turns)
        pools = np.stack([groups == name for name in np.unique(groups)])
        large: NDArray[np.bool_] = pools[pools.sum(1) >= self.ways + self.distractors]
        return large

    def _check(self) -> None:
        for name, value, least in (("ways", self.ways, 1), ("shots", self.shots, 0), ("queries", self.queries, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}; found {value}.")
        needed = self.ways + self.distractors
        available = len(self.data.classes) * self._turns
        if available < needed or not len(self._pools):
            where = f"; found {available}" if available < needed else " in one group; no group has as many"
            raise ValueError(f"a task needs {needed} classes{where}. Lower ways, or bring more classes.")
        least = self.shots + self.unlabelled + self.queries
        small = np.flatnonzero(self.data.sizes < least)
        if len(small):
            named = ", ".join(f"{self.data.classes[c]} ({self.data.sizes[c]})" for c in small[:5])
            raise ValueError(
                f"each class needs {least} examples ({self.shots} shots + {self.unlabelled} unlabelled + {self.queries} "
                f"queries); {len(small)} have fewer: {named}. Lower shots or queries, or leave those classes out."
            )

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these tasks."""
        tasks = f"{self.ways}-way {self.shots}-shot, {self.queries} queries a class"
        extras = f", {self.unlabelled} unlabelled a class, {self.distractors} distractors" if self.unlabelled else ""
        grouped = ", classes of one group" if self.within_groups else ""
        rotations = {} if self.data.rotations == "none" else {"rotations": self.data.rotations.replace("_", " ")}
        return {**self.data.stamp, **rotations, "tasks": tasks + extras + grouped, "task seed": str(self.seed)}

    def sample(self, items: NDArray[np.int64]) -> Episode:
        """Draw the tasks of these numbers, stacked."""
        classes = self._draw_classes(items)
        turns = self._draw_turns(items, classes)
        rows = self._draw_rows(items, classes // self._turns)
        first, last = self.shots, self.shots + self.unlabelled
        labels = np.where(np.arange(classes.shape[1]) < self.ways, np.arange(classes.shape[1]), -1)
        labelled = (rows[:, : self.ways, :first], turns[:, : self.ways], labels[: self.ways])
        extra = (rows[:, :, first:last], turns, np.full_like(labels, -1))
        query = (rows[:, : self.ways, last:], turns[:, : self.ways], labels[: self.ways])
        return Episode(
            self._gather(items, _SUPPORT_ORDER, [labelled, extra] if self.unlabelled else [labelled]),
            self._gather(items, _QUERY_ORDER, [query]),
        )

    def _draw_classes(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        keys = random_keys(self.seed, _CLASSES, items, self._pools.shape[1])
        if self.within_groups:
            group = random_keys(self.seed, _GROUP, items, 1)[:, 0] % np.uint64(len(self._pools))
            keys = np.where(self._pools[group], keys, _NEVER)
        return choose(keys, self.ways + self.distractors)

    def _draw_turns(self, items: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many quarter turns each class of each task makes."""
        match self.data.rotations:
            case "none":
                return np.zeros_like(classes)
            case "classes":
                return classes % 4
            case "per_class":
                return (random_keys(self.seed, _TURNS, items, classes.shape[1]) % np.uint64(4)).astype(np.int64)
            case "per_episode":
                turn = (random_keys(self.seed, _TURNS, items, 1) % np.uint64(4)).astype(np.int64)
                return np.broadcast_to(turn, classes.shape)

    def _draw_rows(self, items: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return ``(t, classes, examples)`` rows of the data, without replacement within a class."""
        sizes = self.data.sizes[classes]
        most = int(self.data.sizes.max())  # of all classes, so that a task does not depend on the others drawn with it
        keys = random_keys(self.seed, _EXAMPLES, items, classes.shape[1] * most).reshape(*classes.shape, most)
        keys = np.where(np.arange(most) < sizes[..., None], keys, _NEVER)
        chosen = choose(keys, self.shots + self.unlabelled + self.queries)
        rows: NDArray[np.int64] = self._order[self._starts[classes][..., None] + chosen]
        return rows

    def _gather(
        self,
        items: NDArray[np.int64],
        stream: int,
        parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]],
    ) -> Batch:
        """Collect (rows, turns, labels) of classes in a random order, so that no label can be read off a position."""
        columns = [np.broadcast_arrays(rows, turns[..., None], labels[:, None]) for rows, turns, labels in parts]
        rows, turns, labels = (
            np.concatenate([column[i].reshape(len(items), -1) for column in columns], 1) for i in range(3)
        )
        order = random_keys(self.seed, stream, items, rows.shape[1]).argsort(1)
        rows, turns, labels = (np.take_along_axis(array, order, 1) for array in (rows, turns, labels))
        x = self._pictures(rows, turns)
        y = torch.from_numpy(labels[..., None] == np.arange(self.ways)).to(x.device, x.dtype)
        return Batch(x, y)

    def _pictures(self, rows: NDArray[np.int64], turns: NDArray[np.int64]) -> Tensor:
        data = self.data.x
        x = data[torch.from_numpy(rows.reshape(-1)).to(data.device)]
        for turn in range(1, 4) if self.data.rotations != "none" else ():
            turned = torch.from_numpy(np.flatnonzero(turns == turn)).to(data.device)
            x[turned] = x[turned].rot90(turn, (-2, -1))
        x = x.reshape(*rows.shape, *x.shape[1:])
        if x.dtype == torch.uint8:
            x = x.to(torch.get_default_dtype()).div_(255)
        return x if self.augment is None else self.augment(x)
