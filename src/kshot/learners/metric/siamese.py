"""Siamese networks: two examples are of one class or not, and a query joins the class of its best pair."""

from collections.abc import Callable
from typing import TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch, Episode
from kshot.learners.encoded import EncodedLearner
from kshot.learners.metric.distances import Distance
from kshot.learners.metric.members import class_logits, joined
from kshot.losses import cross_entropy

__all__ = ["PairLoss", "Siamese", "WeightedL1", "contrastive", "n_pair", "triplet", "verification"]

# Of distances, of which pairs are of one class and which of two, all (q, n); a pair of an unlabelled example is neither.
PairLoss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


@final
class WeightedL1(nn.Module):
    r"""The distance of Koch's verification, :math:`\sum_k \alpha_k |x_{ik} - y_{jk}| - b`: below zero where alike.

    Args:
        features: of an embedding.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((features,), features**-0.5))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "q d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "q n"]:
        """Return the distances ``(q, n)``."""
        return (x[:, None] - y).abs() @ self.weights - self.bias


def verification(distances: Tensor, same: Tensor, different: Tensor) -> Tensor:
    r"""Return the cross-entropy of :math:`p(\text{same}) = \sigma(-d)`, where both kinds of pairs weigh one half."""
    return (_mean(F.softplus(distances), same) + _mean(F.softplus(-distances), different)) / 2


def contrastive(margin: float) -> PairLoss:
    r"""Return :math:`d^2` of one class and :math:`\max(0, m - d)^2` of two, where both kinds weigh one half.

    Raia Hadsell, Sumit Chopra, Yann LeCun 2006, "Dimensionality reduction by learning an invariant mapping".

    >>> contrastive(1.0)(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor(0.2500)
    """

    def loss(distances: Tensor, same: Tensor, different: Tensor) -> Tensor:
        return (_mean(distances.square(), same) + _mean((margin - distances).relu().square(), different)) / 2

    return loss


def triplet(margin: float) -> PairLoss:
    r"""Return the mean of :math:`\max(0, d(a, p) - d(a, n) + m)` over queries a, and p and n of their and other classes.

    Florian Schroff, Dmitry Kalenichenko, James Philbin 2015, "FaceNet".

    >>> triplet(1.0)(torch.tensor([[2.0, 2.5]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor(0.5000)
    """

    def loss(distances: Tensor, same: Tensor, different: Tensor) -> Tensor:
        gaps = (distances[:, :, None] - distances[:, None] + margin).relu()
        return _mean(gaps, same[:, :, None] * different[:, None])

    return loss


def n_pair(distances: Tensor, same: Tensor, different: Tensor) -> Tensor:
    r"""Return the mean of :math:`\log(1 + \sum_n e^{d(a, p) - d(a, n)})` over pairs (a, p) of one class, both ways.

    All n are of other classes: a pair of one class is told from every pair of two at once.

    Kihyuk Sohn 2016, "Improved deep metric learning with multi-class N-pair loss objective".

    >>> n_pair(torch.tensor([[2.0, 2.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])) * 2
    tensor(0.6931)
    """

    def one_way(distances: Tensor, same: Tensor, different: Tensor) -> Tensor:
        # Finite, since minus infinity would make second derivatives NaN where there is no pair of two classes.
        others = torch.where(different > 0, -distances, torch.finfo(distances.dtype).min)
        return _mean(F.softplus(distances + others.logsumexp(1, keepdim=True)), same)

    return (one_way(distances, same, different) + one_way(distances.mT, same.mT, different.mT)) / 2


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1)


@final
class Siamese(EncodedLearner):
    r"""Learn whether two examples are of one class; classify by the support example most like the query.

    .. math:: p(\text{same} \mid x, x') = \sigma\left(b - \sum_k \alpha_k |f_k(x) - f_k(x')|\right)

    Gregory Koch, Richard Zemel, Ruslan Salakhutdinov 2015, "Siamese neural networks for one-shot image recognition". Every
    query with every labelled support example is a pair to train on.

    Args:
        encoder: maps ``(m, *features)`` to embeddings ``(m, d)``, or to maps where the distance is of maps.
        distance: of two examples: ``WeightedL1(d)``, ``Correspondence(c)``, or of ``kshot.learners.metric.distances``.
        pair_loss: what judges distances: ``verification``, ``contrastive(margin)``, ``triplet(margin)`` or ``n_pair``.
    """

    def __init__(self, encoder: nn.Module, distance: Distance, pair_loss: PairLoss = verification) -> None:
        super().__init__(encoder, cross_entropy)  # for its accuracy: task_loss is that of pairs
        self.distance, self.pair_loss = distance, pair_loss

    def adapt(self, support: Batch) -> Batch:
        """Return the embedded support set."""
        return support

    def update(self, state: Batch, support: Batch) -> Batch:
        """Return the support set with more examples, and new classes where y has more columns."""
        return joined(state, support)

    def predict(self, state: Batch, x: Float[Tensor, "q ..."]) -> Float[Tensor, "q ways"]:
        """Return the negative distance of each query to the nearest example of each class, ``(q, ways)``."""
        return class_logits(-self.distance(x, state.x), state.y, torch.amax)

    def task_loss(self, task: Episode) -> Tensor:
        """Return the loss of all pairs of a query and a support example."""
        (sx, sy), (qx, qy) = task
        same, labelled = qy @ sy.mT, qy.sum(1)[:, None] * sy.sum(1)
        return self.pair_loss(self.distance(qx, sx), same, labelled - same)
