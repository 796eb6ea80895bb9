"""Relation networks: how alike two examples are is learned too."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch
from kshot.learners.encoded import EncodedLearner
from kshot.losses import Loss, cross_entropy
from kshot.nets.norm import normalises_by_batch

__all__ = ["Relation", "squared_error_of_scores"]

squared_error_of_scores = Loss(
    lambda logits, y: ((logits.sigmoid() - y).square().sum(-1) * y.sum(-1)).sum() / y.sum().clamp_min(1),
    cross_entropy.metric,
    "accuracy",
    higher_is_better=True,
)


@final
class Relation(EncodedLearner):
    r"""Score a query beside each class by a network.

    .. math:: r_k(x) = \sigma\left(g\left[\sum_i y_{ik} f(x_i),\; f(x)\right]\right)

    Flood Sung et al. 2018, "Learning to compare: relation network for few-shot learning". The scores are trained
    towards one and zero by their squared error.

    Args:
        encoder: maps ``(m, *features)`` to ``(m, c, *space)``: maps keep where things are.
        relation: g maps ``(m, 2 c, *space)`` to ``(m, 1)``.
        loss: what the logits of the scores are judged by.
        transductive: whether ``relation`` uses the queries at hand; layers that normalise by the batch tell it themselves.
    """

    def __init__(
        self, encoder: nn.Module, relation: nn.Module, loss: Loss = squared_error_of_scores, transductive: bool = False
    ) -> None:
        super().__init__(encoder, loss)
        self.relation = relation
        self.transductive = transductive or any(map(normalises_by_batch, relation.modules()))

    def adapt(self, support: Batch) -> Float[Tensor, "ways c *space"]:
        """Return the sum of each class's maps."""
        totals: Tensor = torch.tensordot(support.y.mT, support.x, 1)
        return totals

    def update(self, state: Float[Tensor, "ways c *space"], support: Batch) -> Float[Tensor, "more c *space"]:
        """Return the sums with more examples, and new classes where y has more columns."""
        more = self.adapt(support)
        return more + F.pad(state, (*[0] * (2 * state.dim() - 2), 0, len(more) - len(state)))

    def predict(self, state: Float[Tensor, "ways c *space"], x: Float[Tensor, "q c *space"]) -> Float[Tensor, "q ways"]:
        """Return the logits of the scores, ``(q, ways)``."""
        q, ways = len(x), len(state)
        pairs = torch.cat([state.expand(q, *state.shape), x[:, None].expand(q, ways, *x.shape[1:])], 2)
        scores: Tensor = self.relation(pairs.flatten(0, 1))
        return scores.view(q, ways)
