"""Sequences of bits that a learner is shown and then asked about, made on the fly.

All are of Alex Graves, Greg Wayne, Ivo Danihelka 2014, "Neural Turing machines", section 4. The support set is what is
shown, in order and without targets (y has zero columns); the queries are the steps that are answered, in order too.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.batching import unstack
from kshot.core import Batch, Episode, Tasks
from kshot.tasks.keys import choose, random_keys, uniform, whole_number
from kshot.tasks.source import TaskSource

__all__ = ["AssociativeRecall", "Copy", "NGrams", "PrioritySort", "RepeatCopy", "Sequences"]

_SIZE, _BITS, _CHOICE, _TABLE = range(4)

Range = tuple[int, int]


class Sequences(TaskSource):
    """Tasks whose sizes are drawn from ranges, the same ones for a run of consecutive tasks; abstract.

    Args:
        ranges: the smallest and the largest value of each size by its name, both included.
        bits: in a vector.
        same_length: how many consecutive tasks have the same sizes, so that they stack.
        seed: of the whole stream of tasks.
        length: how many tasks there are.

    Raises:
        ValueError: a range is empty or starts below 1, or a number is below 1.
    """

    def __init__(self, ranges: Mapping[str, Range], bits: int, same_length: int, seed: int, length: int) -> None:
        super().__init__(seed, length)
        for name, (low, high) in ranges.items():
            if not 1 <= low <= high:
                raise ValueError(f"{name} must be (least, most) with 1 <= least <= most; found {(low, high)}.")
        if bits < 1 or same_length < 1:
            raise ValueError(f"bits and same_length must be at least 1; found {bits} and {same_length}.")
        self.ranges, self.bits, self.same_length = ranges, bits, same_length

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these tasks."""
        spans = (f"{name} {low}" + (f" to {high}" if high > low else "") for name, (low, high) in self.ranges.items())
        tasks = ", ".join((*spans, f"{self.bits} bits", f"{self.same_length} of one size in a row"))
        return {"data": self.name, "tasks": tasks, "task seed": str(self.seed)}

    @property
    @abstractmethod
    def name(self) -> str:
        """What the tasks are called."""

    @abstractmethod
    def _of_sizes(self, items: NDArray[np.int64], *sizes: int) -> Episode:
        """Draw the tasks of these numbers, all of the same sizes, stacked."""

    def sizes(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes of each task, ``(t, ranges)``."""
        low, high = np.array(list(self.ranges.values())).T
        drawn = uniform(self.seed, _SIZE, items // self.same_length, len(low))
        sizes: NDArray[np.int64] = low + (drawn * (high - low + 1)).astype(np.int64)
        return sizes

    def sample(self, items: NDArray[np.int64]) -> Tasks:
        """Draw the tasks of these numbers: stacked where their sizes are the same, else a list."""
        sizes = self.sizes(items)
        if (sizes == sizes[:1]).all():
            return self._of_sizes(items, *sizes[0].tolist())
        pairs = zip(items[:, None], sizes.tolist(), strict=True)
        return [unstack(self._of_sizes(item, *of_item))[0] for item, of_item in pairs]

    def _vectors(self, items: NDArray[np.int64], count: int) -> Float[Tensor, "t count bits"]:
        """Draw random vectors of bits."""
        drawn = random_keys(self.seed, _BITS, items, count * self.bits) >> np.uint64(63)
        return _floats(drawn).reshape(-1, count, self.bits)


@final
class Copy(Sequences):
    """Vectors of bits and a delimiter; then, with no input, the same vectors.

    Inputs have ``bits + 1`` features, the last for the delimiter, targets ``bits``. With the defaults the task that the
    paper trains on; it judges lengths 10, 20, 30, 50 and 120.

    Args:
        lengths: the least and the most vectors.
        bits: in a vector.
        same_length: how many consecutive tasks have the same length, so that they stack.
        seed: of the whole stream of tasks.
        length: how many tasks there are.

    >>> task = Copy(lengths=(3, 3), bits=2)[0]
    >>> task.support.x.shape, task.support.y.shape, task.query.x.shape
    (torch.Size([4, 3]), torch.Size([4, 0]), torch.Size([3, 3]))
    >>> bool((task.query.y == task.support.x[:3, :2]).all()), task.support.x[3].tolist()
    (True, [0.0, 0.0, 1.0])
    """

    name = "copy"

    def __init__(
        self, lengths: Range = (1, 20), bits: int = 8, same_length: int = 16, seed: int = 0, length: int = 1000
    ) -> None:
        super().__init__({"length": lengths}, bits, same_length, seed, length)

    def _of_sizes(self, items: NDArray[np.int64], *sizes: int) -> Episode:
        (count,) = sizes
        vectors = self._vectors(items, count)
        shown = vectors.new_zeros(len(items), count + 1, self.bits + 1)
        shown[:, :count, : self.bits] = vectors
        shown[:, count, self.bits] = 1
        return _asked(shown, vectors)


@final
class RepeatCopy(Sequences):
    r"""Vectors of bits and a number of repeats; then, with no input, the vectors that many times, and an end marker.

    Inputs have ``bits + 1`` features, the last for the number of repeats, whose mean is zero and whose variance one where
    it is uniform in a range: :math:`(r - (a + b) / 2) / \sqrt{((b - a + 1)^2 - 1) / 12}`. Targets have ``bits + 1``
    features, the last for the end marker.

    Args:
        lengths: the least and the most vectors.
        repeats: the least and the most repeats.
        bits: in a vector.
        normalised_over: the range a to b by which the number of repeats is normalised: that of training, also where more
            repeats are asked for.
        same_length: how many consecutive tasks have the same length and repeats, so that they stack.
        seed: of the whole stream of tasks.
        length: how many tasks there are.

    Raises:
        ValueError: as ``Sequences``, or the range to normalise over has fewer than two numbers.

    >>> task = RepeatCopy(lengths=(2, 2), repeats=(10, 10), bits=3)[0]
    >>> task.query.y.shape, round(task.support.x[2, 3].item(), 2)
    (torch.Size([21, 4]), 1.57)
    """

    name = "repeat copy"

    def __init__(
        self,
        lengths: Range = (1, 10),
        repeats: Range = (1, 10),
        bits: int = 8,
        normalised_over: Range = (1, 10),
        same_length: int = 16,
        seed: int = 0,
        length: int = 1000,
    ) -> None:
        super().__init__({"length": lengths, "repeats": repeats}, bits, same_length, seed, length)
        if normalised_over[0] >= normalised_over[1]:
            raise ValueError(f"normalised_over must be a range of two numbers or more; found {normalised_over}.")
        self.normalised_over = normalised_over

    def _of_sizes(self, items: NDArray[np.int64], *sizes: int) -> Episode:
        count, repeats = sizes
        vectors = self._vectors(items, count)
        shown = vectors.new_zeros(len(items), count + 1, self.bits + 1)
        shown[:, :count, : self.bits] = vectors
        low, high = self.normalised_over
        shown[:, count, self.bits] = (repeats - (low + high) / 2) / (((high - low + 1) ** 2 - 1) / 12) ** 0.5
        targets = vectors.new_zeros(len(items), repeats * count + 1, self.bits + 1)
        targets[:, :-1, : self.bits] = vectors.repeat(1, repeats, 1)
        targets[:, -1, self.bits] = 1
        return _asked(shown, targets)


@final
class AssociativeRecall(Sequences):
    """Items of a few vectors of bits, one of them again; then, with no input, the item that came after it.

    Inputs have ``bits + 2`` features: the first of the two further ones is a delimiter before each item, the second one
    on both sides of the item that is asked about. Targets have ``bits`` features.

    Args:
        items: the fewest and the most items.
        vectors: in an item.
        bits: in a vector.
        same_length: how many consecutive tasks have the same number of items, so that they stack.
        seed: of the whole stream of tasks.
        length: how many tasks there are.

    Raises:
        ValueError: as ``Sequences``, or there may be fewer than two items.

    >>> task = AssociativeRecall(items=(2, 2))[0]
    >>> task.support.x.shape, task.query.y.shape
    (torch.Size([13, 8]), torch.Size([3, 6]))
    >>> bool((task.support.x[9:12, :6] == task.support.x[1:4, :6]).all() and (task.query.y == task.support.x[5:8, :6]).all())
    True
    """

    name = "associative recall"

    def __init__(
        self,
        items: Range = (2, 6),
        vectors: int = 3,
        bits: int = 6,
        same_length: int = 16,
        seed: int = 0,
        length: int = 1000,
    ) -> None:
        super().__init__({"items": items, "vectors": (vectors, vectors)}, bits, same_length, seed, length)
        if items[0] < 2:
            raise ValueError(f"items must be at least 2, one to ask about and the one after it; found {items}.")

    def _of_sizes(self, items: NDArray[np.int64], *sizes: int) -> Episode:
        count, each = sizes
        shown = self._vectors(items, count * each).reshape(-1, count, each, self.bits)
        asked = whole_number(self.seed, _CHOICE, items, 0, count - 2)
        tasks, cue = torch.arange(len(items)), torch.from_numpy(asked)
        blocks = shown.new_zeros(len(items), count + 1, each + 1, self.bits + 2)
        blocks[:, :count, 1:, : self.bits] = shown
        blocks[:, count, 1:, : self.bits] = shown[tasks, cue]
        blocks[:, :count, 0, self.bits] = 1
        blocks[:, count, 0, self.bits + 1] = 1
        end = shown.new_zeros(len(items), 1, self.bits + 2)
        end[..., self.bits + 1] = 1
        return _asked(torch.cat([blocks.flatten(1, 2), end], 1), shown[tasks, cue + 1])


@final
class PrioritySort(Sequences):
    """Vectors of bits, each with a priority, and a delimiter; then, with no input, the vectors of the highest priorities.

    Inputs have ``bits + 2`` features, the first of the two further ones for the priority, uniform between -1 and 1, the
    last for the delimiter. Targets are ``bits`` features, the highest priority first.

    Args:
        vectors: that are shown.
        kept: how many of them are asked for.
        bits: in a vector.
        seed: of the whole stream of tasks.
        length: how many tasks there are.

    Raises:
        ValueError: as ``Sequences``, or more vectors are asked for than are shown.

    >>> task = PrioritySort(vectors=3, kept=1, bits=2)[0]
    >>> bool((task.query.y[0] == task.support.x[task.support.x[:3, 2].argmax(), :2]).all())
    True
    """

    name = "priority sort"

    def __init__(self, vectors: int = 20, kept: int = 16, bits: int = 8, seed: int = 0, length: int = 1000) -> None:
        super().__init__({"vectors": (vectors, vectors), "sorted": (kept, kept)}, bits, 1, seed, length)
        if kept > vectors:
            raise ValueError(f"kept must be at most the {vectors} vectors that are shown; found {kept}.")

    def _of_sizes(self, items: NDArray[np.int64], *sizes: int) -> Episode:
        count, kept = sizes
        vectors = self._vectors(items, count)
        keys = random_keys(self.seed, _CHOICE, items, count)
        shown = vectors.new_zeros(len(items), count + 1, self.bits + 2)
        shown[:, :count, : self.bits] = vectors
        shown[:, :count, self.bits] = _floats(1 - 2 * (keys.astype(np.float64) * 2.0**-64))
        shown[:, count, self.bits + 1] = 1
        first = torch.from_numpy(choose(keys, kept))  # the smallest key is the highest priority
        return _asked(shown, vectors.gather(1, first[..., None].expand(-1, -1, self.bits)))


@final
class NGrams(Sequences):
    r"""Bits drawn by a table that is new in every task: what comes next after each context of ``n - 1`` bits.

    .. math:: P(b_t = 1) = \theta_{b_{t - n + 1} \dots b_{t - 1}}, \quad \theta \sim \mathrm{Beta}(\tfrac12, \tfrac12)

    The first ``n - 1`` bits are fair coins, and nobody is asked about them. Inputs have one feature, the bit before the
    one that is to be predicted: support examples are the first ``n - 2`` bits, queries those after them but the last.

    Args:
        n: the length of context and next bit together.
        bits: in a sequence.
        seed: of the whole stream of tasks.
        length: how many tasks there are.

    Raises:
        ValueError: as ``Sequences``, n is below 2, or there is no bit to predict.

    >>> task = NGrams()[0]
    >>> task.support.x.shape, task.query.x.shape
    (torch.Size([4, 1]), torch.Size([195, 1]))
    >>> bool((task.query.x[1:] == task.query.y[:-1]).all())
    True
    """

    name = "n-grams"

    def __init__(self, n: int = 6, bits: int = 200, seed: int = 0, length: int = 1000) -> None:
        super().__init__({"n": (n, n)}, bits, 1, seed, length)
        if not 2 <= n <= bits:
            raise ValueError(f"n must be at least 2 and at most the {bits} bits of a sequence; found {n}.")
        self.n = n

    def _of_sizes(self, items: NDArray[np.int64], *sizes: int) -> Episode:
        (n,) = sizes
        table = np.sin(np.pi / 2 * uniform(self.seed, _TABLE, items, 2 ** (n - 1))) ** 2  # the quantiles of this Beta
        chance = uniform(self.seed, _BITS, items, self.bits)
        drawn = np.zeros((len(items), self.bits), np.int64)
        drawn[:, : n - 1] = chance[:, : n - 1] < 0.5
        for t in range(n - 1, self.bits):
            context = drawn[:, t - n + 1 : t] @ 2 ** np.arange(n - 2, -1, -1)
            drawn[:, t] = chance[:, t] < table[np.arange(len(items)), context]
        whole = _floats(drawn)[..., None]
        support, x = whole[:, : n - 2], whole[:, n - 2 : -1]
        return Episode(Batch(support, support[..., :0]), Batch(x, whole[:, n - 1 :]))

    def optimal_bits(self, task: Episode) -> Float[Tensor, "*t"]:
        r"""Return what the Bayes-optimal predictor pays for the queries of one task, or of each of stacked tasks, in bits.

        .. math:: P(b_t = 1) = (N_1 + \tfrac12) / (N_0 + N_1 + 1)

        with the counts N of what followed the same context so far (Kevin Murphy 2012, "Machine learning: a probabilistic
        perspective", section 3.3): nothing can predict better on average over tasks.
        """
        seen = torch.cat([task.support.x, task.query.x], -2)[..., 0].double()
        powers = 2.0 ** torch.arange(self.n - 2, -1, -1, dtype=seen.dtype, device=seen.device)
        context = (seen.unfold(-1, self.n - 1, 1) * powers).sum(-1)  # of each query
        y = task.query.y[..., 0].double()
        before = torch.ones(y.shape[-1], y.shape[-1], dtype=y.dtype, device=y.device).tril(-1)
        same = (context[..., :, None] == context[..., None, :]) * before
        ones, all_ = (same * y[..., None, :]).sum(-1), same.sum(-1)
        p = (ones + 0.5) / (all_ + 1)
        return -torch.where(y > 0.5, p, 1 - p).log2().sum(-1)


def _floats(numbers: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(numbers.astype(np.float64)).to(torch.get_default_dtype())


def _asked(shown: Tensor, targets: Tensor) -> Episode:
    """Show inputs without targets, then ask for targets without inputs."""
    blank = shown.new_zeros(*targets.shape[:2], shown.shape[-1])
    return Episode(Batch(shown, shown[..., :0]), Batch(blank, targets))
