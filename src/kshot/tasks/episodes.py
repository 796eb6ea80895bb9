"""N-way K-shot tasks over any labelled data."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from kshot.core import Batch, Episode
from kshot.tasks.augment import Augment
from kshot.tasks.drawing import Drawer, Stream
from kshot.tasks.keys import uniform
from kshot.tasks.labelled import LabelledData
from kshot.tasks.source import TaskSource

__all__ = ["Episodes"]


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
        augment: makes new examples from those drawn, see ``kshot.tasks.augment``.
        uneven: draw the support set from twice as many examples of each class (or from as many as there are), so that a
            class has ``shots`` on average, and a learner that reads a stream cannot tell by counting what comes next.

    Raises:
        ValueError: too few classes, a class with too few examples, which is named, or ``uneven`` with ``unlabelled``.

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
        augment: Augment | None = None,
        uneven: bool = False,
    ) -> None:
        super().__init__(seed, length)
        self.data, self.ways, self.shots, self.queries = data, ways, shots, queries
        self.unlabelled, self.distractors, self.augment = unlabelled, distractors, augment
        self.within_groups, self.uneven = within_groups, uneven
        if uneven and unlabelled:
            raise ValueError(f"uneven tasks have no unlabelled examples; found unlabelled={unlabelled}. Leave one out.")
        counts = {
            "ways": ways,
            "shots": shots,
            "queries": queries,
            "unlabelled": unlabelled,
            "distractors": distractors,
        }
        for name, value in counts.items():
            if value < (least := int(name == "ways")):
                raise ValueError(f"{name} must be at least {least}; found {value}.")
        self._drawer = Drawer(data, seed, ways + distractors, within_groups)
        self._drawer.require_examples(
            shots + unlabelled + queries,
            f"{shots} shots + {unlabelled} unlabelled + {queries} queries",
            "Lower shots or queries, or leave those classes out.",
        )

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these tasks."""
        shots = f"{self.shots}-shot" + (" on average" if self.uneven else "")
        tasks = f"{self.ways}-way {shots}, {self.queries} queries a class"
        extras = f", {self.unlabelled} unlabelled a class, {self.distractors} distractors" if self.unlabelled else ""
        augmented = {} if self.augment is None else {"augment": str(self.augment)}
        return {**self._drawer.stamp(tasks + extras), **augmented}

    def sample(self, items: NDArray[np.int64]) -> Episode:
        """Draw the tasks of these numbers, stacked."""
        classes, turns = self._drawer.classes(items, self.ways + self.distractors)
        first = min(2 * self.shots, int(self.data.sizes.min()) - self.queries) if self.uneven else self.shots
        last = first + self.unlabelled
        rows = self._drawer.rows(items, classes, last + self.queries)
        way, ways = np.arange(classes.shape[1]), self.ways
        labelled = _flat(rows[:, :ways, :first], turns[:, :ways], way[:ways])
        extra = _flat(rows[:, :, first:last], turns, np.full_like(way, -1))
        query = _flat(rows[:, :ways, last:], turns[:, :ways], way[:ways])
        support = (np.concatenate(pair, -1) for pair in zip(labelled, extra, strict=True))
        return Episode(
            self._batch(items, Stream.SUPPORT_ORDER, *support, keep=ways * self.shots if self.uneven else None),
            self._batch(items, Stream.QUERY_ORDER, *query),
        )

    def _batch(
        self, items: NDArray[np.int64], order: Stream, *examples: NDArray[np.int64], keep: int | None = None
    ) -> Batch:
        x, y = self._drawer.batch(items, order, self.ways, *examples, keep=keep)
        if self.augment is None:
            return Batch(x, y)
        stream = Stream.AUGMENT_SUPPORT if order is Stream.SUPPORT_ORDER else Stream.AUGMENT_QUERY
        drawn = uniform(self.seed, stream, items, x.shape[1] * self.augment.numbers)
        return Batch(self.augment(x, torch.from_numpy(drawn).reshape(*x.shape[:2], -1)), y)


def _flat(
    rows: NDArray[np.int64], turns: NDArray[np.int64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Turn ``(t, classes, each)`` rows, and what is known of their classes, into one entry for each example."""
    each = rows.shape[2]
    return rows.reshape(len(rows), -1), turns.repeat(each, 1), labels.repeat(each)
