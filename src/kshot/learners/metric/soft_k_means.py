"""Prototypes refined by examples without labels."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch
from kshot.learners.encoded import EncodedLearner
from kshot.learners.metric.distances import squared_euclidean
from kshot.learners.metric.prototypical import Prototypes
from kshot.losses import Loss, cross_entropy

__all__ = ["SoftKMeans"]


@final
class SoftKMeans(EncodedLearner):
    r"""Move the prototypes towards the unlabelled examples of the support set that lie near them.

    .. math::
        w_{jk} = \mathrm{softmax}_k(-\lVert f(\tilde x_j) - c_k \rVert^2), \qquad
        \tilde c_k = \frac{\sum_i y_{ik} f(x_i) + \sum_j w_{jk} f(\tilde x_j)}{\sum_i y_{ik} + \sum_j w_{jk}}

    Mengye Ren et al. 2018, "Meta-learning for semi-supervised few-shot classification". An all-zero row of y is an
    unlabelled example.

    Args:
        encoder: maps ``(m, *features)`` to embeddings ``(m, d)``.
        loss: what the query predictions are judged by.
        steps: how often the prototypes move.
        distractors: unlabelled examples may be of none of the classes: a cluster about the origin, whose radius is
            learned, takes those in.
        transductive: the queries themselves are unlabelled examples too.
    """

    uses_unlabelled = True

    def __init__(
        self,
        encoder: nn.Module,
        loss: Loss = cross_entropy,
        *,
        steps: int = 1,
        distractors: bool = False,
        transductive: bool = False,
    ) -> None:
        super().__init__(encoder, loss)
        self.steps, self.transductive = steps, transductive
        self.log_radius = nn.Parameter(torch.zeros(())) if distractors else None

    def adapt(self, support: Batch) -> Prototypes:
        """Return the prototypes, moved by the unlabelled examples; they count by their weights."""
        z, y = support
        none = Prototypes(z.new_zeros(y.shape[1], z.shape[1]), y.new_zeros(y.shape[1]))
        return self._refined(none.joined(z, y), z, 1 - y.sum(1))

    def predict(self, state: Prototypes, x: Float[Tensor, "q d"]) -> Float[Tensor, "q ways"]:
        """Return the negative squared distances to the prototypes, ``(q, ways)``."""
        if self.transductive:
            state = self._refined(state, x, x.new_ones(len(x)))
        return -squared_euclidean(x, state.means)

    def _refined(self, start: Prototypes, z: Tensor, unlabelled: Tensor) -> Prototypes:
        state = start
        for _ in range(self.steps):
            state = start.joined(z, self._weights(state, z) * unlabelled[:, None])
        return state

    def _weights(self, state: Prototypes, z: Tensor) -> Float[Tensor, "n ways"]:
        # A class without examples, labelled or not, has no place and draws nothing in.
        logits = -squared_euclidean(z, state.means).masked_fill(state.counts == 0, torch.inf)
        if self.log_radius is None:
            return logits.softmax(-1)
        # Logarithm of the density of a Gaussian, as the paper has it; the other clusters' radius is one.
        elsewhere = -z.square().sum(-1, keepdim=True) * (-2 * self.log_radius).exp() - self.log_radius
        return torch.cat([logits, elsewhere], -1).softmax(-1)[:, :-1]
