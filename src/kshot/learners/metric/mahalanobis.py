"""A Gaussian for each class, its covariance shrunk towards that of the task."""

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch
from kshot.learners.encoded import EncodedLearner
from kshot.learners.metric.distances import mahalanobis
from kshot.losses import Loss, cross_entropy

__all__ = ["Gaussians", "Mahalanobis"]


class Gaussians(NamedTuple):
    """Number of examples ``(ways + 1,)``, their mean ``(ways + 1, d)`` and scatter about it ``(ways + 1, d, d)``.

    The last is that of the whole task. A class without an example has its mean at the origin.
    """

    counts: Tensor
    means: Tensor
    scatters: Tensor

    def joined(self, other: "Gaussians") -> "Gaussians":
        """Return those of the examples of both, where other may have more classes."""
        before = self._widened(len(other.counts) - len(self.counts))
        counts = before.counts + other.counts
        share = other.counts / torch.where(counts > 0, counts, 1)
        apart = other.means - before.means
        between = (before.counts * share)[:, None, None] * apart[:, :, None] * apart[:, None]
        means = before.means + share[:, None] * apart
        return Gaussians(counts, means, before.scatters + other.scatters + between)

    def _widened(self, classes: int) -> "Gaussians":
        """Put empty classes before the task."""
        return Gaussians(*(torch.cat([one[:-1], one.new_zeros(classes, *one.shape[1:]), one[-1:]]) for one in self))


@final
class Mahalanobis(EncodedLearner):
    r"""Classify by the Mahalanobis distance to the mean of each class.

    .. math::
        d_k(x) = \tfrac12 (f(x) - c_k)^\top Q_k^{-1} (f(x) - c_k), \qquad
        Q_k = \lambda_k \Sigma_k + (1 - \lambda_k) \Sigma + \beta I, \quad \lambda_k = n_k / (n_k + 1)

    with the covariance of the class's :math:`n_k` embedded examples and that of the whole support set. Peyman Bateni,
    Raghav Goyal, Vaden Masrani, Frank Wood, Leonid Sigal 2020, "Improved few-shot visual classification".

    Args:
        encoder: maps ``(m, *features)`` to embeddings ``(m, d)``.
        loss: what the query predictions are judged by.
        ridge: beta, which keeps a covariance of few examples invertible.
    """

    def __init__(self, encoder: nn.Module, loss: Loss = cross_entropy, ridge: float = 1.0) -> None:
        super().__init__(encoder, loss)
        self.ridge = ridge

    def adapt(self, support: Batch) -> Gaussians:
        """Return the Gaussian of each class, and that of the task."""
        z, y = support
        y = torch.cat([y, y.sum(1, keepdim=True)], 1)  # a last column for each labelled example
        counts = y.sum(0)
        means = y.mT @ z / torch.where(counts > 0, counts, 1)[:, None]
        centred = (z - means[:, None]) * y.mT[:, :, None].sqrt()  # (ways + 1, n, d)
        return Gaussians(counts, means, centred.mT @ centred)

    def update(self, state: Gaussians, support: Batch) -> Gaussians:
        """Return the Gaussians with more examples, and new classes where y has more columns."""
        return state.joined(self.adapt(support))

    def predict(self, state: Gaussians, x: Float[Tensor, "q d"]) -> Float[Tensor, "q ways"]:
        """Return minus half the squared distances, ``(q, ways)``; the covariance of a single example is zero."""
        counts, means, scatters = state
        covariances = scatters / (counts - 1).clamp_min(1)[:, None, None]
        weight = (counts / (counts + 1))[:-1, None, None]
        shrunk = weight * covariances[:-1] + (1 - weight) * covariances[-1]
        ridge = self.ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        return -mahalanobis(x, means[:-1], torch.linalg.cholesky(shrunk + ridge)) / 2
