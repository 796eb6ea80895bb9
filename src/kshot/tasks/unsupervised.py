"""Tasks without labels: every example a class of its own, or classes that are clusters of embeddings."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.core import Batch, Episode
from kshot.tasks.augment import Augment
from kshot.tasks.drawing import Drawer, Stream
from kshot.tasks.keys import uniform
from kshot.tasks.labelled import LabelledData
from kshot.tasks.source import TaskSource
from kshot.validation import check_sizes

__all__ = ["Instances", "clustered"]


class Instances(TaskSource):
    """Tasks of ``ways`` examples, each a class of its own, whose queries are changed copies of them.

    Siavash Khodadadeh, Ladislau Bölöni, Mubarak Shah 2019, "Unsupervised meta-learning for few-shot image classification"
    (UMTRA): where there are many classes, few tasks have two examples of one. With ``augment_support`` both are changed
    copies, as in SimCLR (``kshot.learners.transfer.Contrastive``).

    Args:
        x: unlabelled examples ``(n, *features)``.
        ways: examples in a task.
        augment: makes a changed copy, see ``kshot.tasks.augment``.
        queries: changed copies of each.
        seed: of the whole stream of tasks.
        length: how many tasks ``len``, iteration and ``batches`` give.
        augment_support: whether the support set has changed copies too.
        stamp: where the data comes from, for the record of every result.

    Raises:
        ValueError: there are fewer examples than ways, or ways or queries are below 1.

    >>> from kshot.tasks.augment import Distortions
    >>> task = Instances(torch.rand(50, 1, 28, 28), ways=5, augment=Distortions())[0]
    >>> task.support.x.shape, task.query.y.sum(0).tolist()
    (torch.Size([5, 1, 28, 28]), [1.0, 1.0, 1.0, 1.0, 1.0])
    """

    def __init__(
        self,
        x: Tensor,
        ways: int,
        augment: Augment,
        queries: int = 1,
        seed: int = 0,
        length: int = 1000,
        *,
        augment_support: bool = False,
        stamp: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(seed, length)
        check_sizes(ways=ways, queries=queries)
        self.ways, self.queries, self.augment, self.augment_support = ways, queries, augment, augment_support
        names = tuple(f"example {i}" for i in range(len(x)))
        self.data = LabelledData(x, torch.arange(len(x), device=x.device), names, stamp=stamp or {})
        self._drawer = Drawer(self.data, seed, ways, within_groups=False)

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these tasks."""
        copies = "support and queries" if self.augment_support else "queries"
        tasks = f"{self.ways} examples, {self.queries} queries each; {copies} are changed copies"
        return {**self._drawer.stamp(tasks), "augment": str(self.augment)}

    def sample(self, items: NDArray[np.int64]) -> Episode:
        """Draw the tasks of these numbers, stacked."""
        rows, turns = self._drawer.classes(items, self.ways)  # a class is a row
        support = self._drawer.batch(items, Stream.SUPPORT_ORDER, self.ways, rows, turns, np.arange(self.ways))
        rows, turns = (part.repeat(self.queries, 1) for part in (rows, turns))
        labels = np.arange(self.ways).repeat(self.queries)
        query = self._drawer.batch(items, Stream.QUERY_ORDER, self.ways, rows, turns, labels)
        if self.augment_support:
            support = self._changed(support, Stream.AUGMENT_SUPPORT, items)
        return Episode(support, self._changed(query, Stream.AUGMENT_QUERY, items))

    def _changed(self, batch: Batch, stream: Stream, items: NDArray[np.int64]) -> Batch:
        x, y = batch
        drawn = uniform(self.seed, stream, items, x.shape[1] * self.augment.numbers)
        return Batch(self.augment(x, torch.from_numpy(drawn).reshape(*x.shape[:2], -1)), y)


def clustered(
    x: Tensor,
    z: Float[Tensor, "n d"],
    clusters: int,
    *,
    least: int = 1,
    seed: int = 0,
    stretch: bool = False,
    stamp: Mapping[str, str] | None = None,
) -> LabelledData:
    """Take clusters of embeddings for classes, from which ``Episodes`` then draws tasks.

    Kyle Hsu, Sergey Levine, Chelsea Finn 2019, "Unsupervised learning via meta-learning" (CACTUs), by k-means. The paper
    draws tasks from many partitions, each of differently stretched embeddings: call it once for each.

    Args:
        x: unlabelled examples ``(n, *features)``.
        z: their embeddings, by an encoder that was trained without labels.
        clusters: how many.
        least: clusters with fewer examples are left out, with their examples.
        seed: of k-means.
        stretch: stretch each dimension of the embeddings by a random number in 0..1.
        stamp: where the data comes from, for the record of every result.

    Raises:
        ImportError: scikit-learn is missing.
        ValueError: x and z differ in length, there are fewer examples than clusters, or no cluster is large enough.

    >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0]])
    >>> clustered(x, x, clusters=3, least=2).sizes.tolist()
    [2, 2]
    """
    if len(x) != len(z) or not 1 <= clusters <= len(z):
        raise ValueError(
            f"clustered expects an embedding for each example, and no more clusters than examples; found {len(x)} "
            f"examples, {len(z)} embeddings and {clusters} clusters."
        )
    points = z.detach().cpu().numpy()
    if stretch:
        points = points * np.random.default_rng(seed).uniform(size=(1, points.shape[1])).astype(points.dtype)
    numbers = _k_means(points, clusters, seed)
    sizes = np.bincount(numbers, minlength=clusters)
    kept = np.flatnonzero(sizes >= max(least, 1))
    if not len(kept):
        raise ValueError(f"no cluster has {least} examples; the largest has {sizes.max()}. Ask for fewer clusters.")
    rows = torch.from_numpy(np.flatnonzero(np.isin(numbers, kept)))
    labels = torch.from_numpy(np.searchsorted(kept, numbers[rows.numpy()]))
    names = tuple(f"cluster {number}" for number in kept)
    told = {**(stamp or {}), "classes": f"{len(kept)} clusters of embeddings, seed {seed}"}
    return LabelledData(x[rows.to(x.device)], labels.to(x.device), names, stamp=told)


def _k_means(points: NDArray[np.floating], clusters: int, seed: int) -> NDArray[np.int64]:
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise ImportError("clustered needs scikit-learn: pip install 'kshot[sklearn]'") from error
    numbers: NDArray[np.int64] = KMeans(clusters, n_init=1, random_state=seed).fit_predict(points).astype(np.int64)
    return numbers
