"""Prototypical networks: a class is the mean of its embedded examples."""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch
from kshot.learners.encoded import EncodedLearner
from kshot.learners.metric.distances import Distance, squared_euclidean
from kshot.losses import Loss, cross_entropy

__all__ = ["Prototypes", "Prototypical"]


class Prototypes(NamedTuple):
    """Class means ``(ways, d)``, and how many examples each is the mean of, ``(ways,)``.

    A class without an example has its mean at the origin.
    """

    means: Tensor
    counts: Tensor

    def joined(self, z: Float[Tensor, "n d"], y: Float[Tensor, "n ways"]) -> "Prototypes":
        """Return the means with embedded examples joined, whose rows of y, 0 to 1 in sum, may bring new classes."""
        means = F.pad(self.means, (0, 0, 0, y.shape[1] - len(self.means)))
        counts = F.pad(self.counts, (0, y.shape[1] - len(self.counts)))
        totals, after = means * counts[:, None] + y.mT @ z, counts + y.sum(0)
        present = after > 0
        return Prototypes(totals / torch.where(present, after, 1)[:, None], after)


@final
class Prototypical(EncodedLearner):
    r"""Classify by the nearest class mean of embedded support examples.

    .. math::
        c_k = \frac{\sum_i y_{ik} f(x_i)}{\sum_i y_{ik}}, \qquad p(k \mid x) \propto \exp(-d(f(x), c_k))

    Jake Snell, Kevin Swersky, Richard Zemel 2017, "Prototypical networks for few-shot learning", with the squared
    Euclidean distance.

    Args:
        encoder: maps ``(m, *features)`` to embeddings ``(m, d)``.
        loss: what the query predictions are judged by.
        distance: d, of ``kshot.learners.metric.distances`` or any other.

    >>> from kshot.core import one_hot
    >>> learner = Prototypical(nn.Identity())
    >>> prototypes = learner.adapt(Batch(torch.tensor([[0.0], [2.0], [9.0]]), one_hot([0, 0, 1], 2)))
    >>> prototypes.means
    tensor([[1.],
            [9.]])
    >>> learner.predict(prototypes, torch.tensor([[2.0]]))
    tensor([[ -1., -49.]])
    """

    def __init__(
        self, encoder: nn.Module, loss: Loss = cross_entropy, *, distance: Distance = squared_euclidean
    ) -> None:
        super().__init__(encoder, loss)
        self.distance = distance

    def adapt(self, support: Batch) -> Prototypes:
        """Return the prototypes."""
        z, y = support
        return Prototypes(z.new_zeros(y.shape[1], z.shape[1]), y.new_zeros(y.shape[1])).joined(z, y)

    def update(self, state: Prototypes, support: Batch) -> Prototypes:
        """Return the prototypes with more examples, and new classes after the old ones where y has more columns.

        They are those of adapting to all examples at once.
        """
        return state.joined(*support)

    def predict(self, state: Prototypes, x: Float[Tensor, "q d"]) -> Float[Tensor, "q ways"]:
        """Return the negative distances of embedded queries to the prototypes, ``(q, ways)``."""
        return -self.distance(x, state.means)
