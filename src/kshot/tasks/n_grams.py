"""The next bit of a source whose table is drawn for each task: Graves et al. 2014, section 4.4."""

from typing import final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.core import Batch, Episode
from kshot.tasks.keys import uniform
from kshot.tasks.sequences import BITS, Sequences, floats

__all__ = ["NGrams"]

_TABLE = 3  # a stream of random numbers


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
        chance = uniform(self.seed, BITS, items, self.bits)
        drawn = np.zeros((len(items), self.bits), np.int64)
        drawn[:, : n - 1] = chance[:, : n - 1] < 0.5
        for t in range(n - 1, self.bits):
            context = drawn[:, t - n + 1 : t] @ 2 ** np.arange(n - 2, -1, -1)
            drawn[:, t] = chance[:, t] < table[np.arange(len(items)), context]
        whole = floats(drawn)[..., None]
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
