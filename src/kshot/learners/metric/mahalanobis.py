"""A Gaussian for each class, its covariance shrunk towards that of the task."""

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch
from kshot.learners.metric.base import MetricLearner
from kshot.learners.metric.distances import mahalanobis
from kshot.losses import Loss, cross_entropy

__all__ = ["Gaussians", "Mahalanobis"]


class Gaussians(NamedTuple):
    """Means ``(ways, d)`` and lower triangles ``(ways, d, d)``, which by their transposes are the covariances."""

    means: Tensor
    roots: Tensor


@final
class Mahalanobis(MetricLearner):
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
        """Return the Gaussian of each class; without an example, it is the task's covariance about the origin."""
        z, y = support
        every = y.sum(1, keepdim=True)  # one for each labelled example
        means, covariances, counts = _moments(z, torch.cat([y, every], 1))
        weight = (counts / (counts + 1))[:-1, None, None]
        shrunk = weight * covariances[:-1] + (1 - weight) * covariances[-1]
        ridge = self.ridge * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        return Gaussians(means[:-1], torch.linalg.cholesky(shrunk + ridge))

    def predict(self, state: Gaussians, x: Float[Tensor, "q d"]) -> Float[Tensor, "q ways"]:
        """Return minus half the squared distances, ``(q, ways)``."""
        return -mahalanobis(x, *state) / 2


def _moments(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, unbiased covariance (zero for a single example) and number of each column's examples."""
    counts = y.sum(0)
    means = (y.mT @ z) / counts.clamp_min(1)[:, None]
    centred = (z - means[:, None]) * y.mT[:, :, None].sqrt()  # (columns, n, d)
    return means, centred.mT @ centred / (counts - 1).clamp_min(1)[:, None, None], counts
