"""Tasks of variable ways and shots, with imbalanced classes."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kshot.batching import unstack
from kshot.core import Episode
from kshot.tasks.drawing import Drawer, Stream
from kshot.tasks.keys import uniform, whole_number
from kshot.tasks.labelled import LabelledData
from kshot.tasks.source import TaskSource
from kshot.validation import check_sizes

__all__ = ["VariableEpisodes"]

_MOST_OF_A_CLASS = 100  # what one class adds to the size of a support set, so that a huge class does not decide it


class VariableEpisodes(TaskSource):
    r"""Tasks whose number of classes, support size and shots of each class are drawn too.

    With :math:`|c|` the examples of class c, a task draws w classes and takes of each of them q queries and
    :math:`k_c` shots, some classes far more than others:

    .. math::
        w &\sim U\{w_\min, \dots, \min(w_\max, \text{classes})\}, \quad
        q = \min(10, \lfloor \tfrac12 \min_c |c| \rfloor) \\
        |S| &= \min(500, \sum_c \lceil \beta \min(100, |c| - q) \rceil), \quad \beta \sim U(0, 1] \\
        R_c &\propto e^{\alpha_c} |c|, \quad \alpha_c \sim U[\log \tfrac12, \log 2) \\
        k_c &= \min(\lfloor R_c (|S| - w) \rfloor + 1, |c| - q)

    Eleni Triantafillou et al. 2020, "Meta-Dataset: a dataset of datasets for learning to learn from few examples",
    section 3.2. There the classes of Omniglot come from one alphabet, as with ``within_groups``, and those of ImageNet
    from one part of its ontology, which is not done here.

    Args:
        data: examples by class.
        ways: the fewest and the most classes of a task; where there are fewer classes, all of them are the most.
        max_support: the most examples in a support set.
        max_queries: the most query examples of each class.
        seed: of the whole stream of tasks.
        length: how many tasks ``len``, iteration and ``batches`` give.
        within_groups: draw the classes of a task from one group (one alphabet, say) that has enough.

    Raises:
        ValueError: a range is empty, there are too few classes, or a class has fewer than 2 examples (it is named).

    >>> import torch
    >>> data = LabelledData.from_arrays(torch.arange(200.0)[:, None], [c for c in range(10) for _ in range(20)])
    >>> tasks = VariableEpisodes(data, ways=(2, 4)).sample(np.arange(50))
    >>> sorted({task.support.y.shape[1] for task in tasks})
    [2, 3, 4]
    >>> all((task.query.y.sum(0) == 10).all() and (task.support.y.sum(0) >= 1).all() for task in tasks)
    True
    """

    def __init__(
        self,
        data: LabelledData,
        ways: tuple[int, int] = (5, 50),
        max_support: int = 500,
        max_queries: int = 10,
        seed: int = 0,
        length: int = 1000,
        *,
        within_groups: bool = False,
    ) -> None:
        super().__init__(seed, length)
        self.data, self.ways, self.max_support, self.max_queries = data, ways, max_support, max_queries
        self.within_groups = within_groups
        if not 1 <= ways[0] <= ways[1]:
            raise ValueError(f"ways must be (fewest, most) with 1 <= fewest <= most; found {ways}. Use (5, 50), say.")
        check_sizes(max_queries=max_queries)
        if max_support < ways[1]:
            raise ValueError(
                f"max_support must be at least {ways[1]}, one example for each way; found {max_support}. "
                "Raise it, or lower ways."
            )
        self._drawer = Drawer(data, seed, ways[0], within_groups)
        self._drawer.require_examples(2, "one to learn from, one to answer", "Leave those classes out.")

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these tasks."""
        return self._drawer.stamp(
            f"{self.ways[0]}-{self.ways[1]} ways, variable shots (Meta-Dataset), "
            f"at most {self.max_support} support examples, at most {self.max_queries} queries a class"
        )

    def sample(self, items: NDArray[np.int64]) -> list[Episode]:
        """Draw the tasks of these numbers."""
        return [self._task(items[i : i + 1]) for i in range(len(items))]

    def _task(self, item: NDArray[np.int64]) -> Episode:
        ways = self._draw_ways(item)
        classes, turns = self._drawer.classes(item, ways)
        queries, shots = self._draw_sizes(item, self.data.sizes[classes[0]])
        rows = self._drawer.rows(item, classes, queries + int(shots.max()))
        example = np.arange(rows.shape[2])
        batches = []
        for order, taken in (
            (Stream.SUPPORT_ORDER, (example >= queries) & (example < queries + shots[:, None])),
            (Stream.QUERY_ORDER, np.broadcast_to(example < queries, rows.shape[1:])),
        ):
            way = taken.nonzero()[0]
            batches.append(self._drawer.batch(item, order, ways, rows[:, taken], turns[:, way], way))
        return unstack(Episode(*batches))[0]

    def _draw_ways(self, item: NDArray[np.int64]) -> int:
        least, most = self.ways
        most = min(most, int(self._drawer.available(item)[0]))
        return int(whole_number(self.seed, Stream.WAYS, item, least, most)[0])

    def _draw_sizes(self, item: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
        """Return the queries of every class, and the shots of each, for classes of these sizes."""
        ways = len(sizes)
        queries = min(self.max_queries, int(sizes.min()) // 2)
        left = sizes - queries
        beta = 1 - uniform(self.seed, Stream.SUPPORT_SIZE, item, 1)[0]
        support = min(self.max_support, np.ceil(beta * np.minimum(_MOST_OF_A_CLASS, left)).sum())
        alpha = math.log(2) * (2 * uniform(self.seed, Stream.PROPORTIONS, item, ways)[0] - 1)
        weights = np.exp(alpha) * sizes
        shots = np.floor(weights / weights.sum() * (support - ways)).astype(np.int64) + 1
        return queries, np.minimum(shots, left)
