"""Matching networks: a query takes the labels of the support examples that it attends to."""

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch
from kshot.learners.encoded import EncodedLearner
from kshot.learners.metric.distances import Distance, cosine
from kshot.learners.metric.members import class_logits, joined
from kshot.losses import Loss, cross_entropy
from kshot.plain_operations import PlainOperations

__all__ = ["FullContext", "Matching"]


@final
class FullContext(nn.Module):
    r"""Embed each example in the light of the whole support set.

    The support set is read by an LSTM both ways, and its two outputs are added to each embedding:
    :math:`g_i = \overrightarrow{h}_i + \overleftarrow{h}_i + z_i`. A query f is read by an LSTM of some steps, each of
    which adds f to its output and looks at the support set: :math:`r = \sum_i \mathrm{softmax}_i(h \cdot g_i)\, g_i`.

    Args:
        features: of an embedding.
        steps: that a query is read for.

    Oriol Vinyals et al. 2016, "Matching networks for one shot learning", appendix A.
    """

    def __init__(self, features: int, steps: int = 3) -> None:
        super().__init__()
        self.both_ways = nn.LSTM(features, features, bidirectional=True)
        self.reading = nn.LSTMCell(2 * features, features)
        self.steps = steps

    def support(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Embed the support set."""
        if not len(z):
            return z  # which an LSTM does not read
        with PlainOperations():
            forwards, backwards = self.both_ways(z)[0].chunk(2, -1)
        in_context: Tensor = forwards + backwards + z
        return in_context

    def queries(self, z: Float[Tensor, "q d"], support: Float[Tensor, "n d"]) -> Float[Tensor, "q d"]:
        """Embed queries, given the embedded support set."""
        h, memory, read = z, torch.zeros_like(z), support.sum(0).div(max(len(support), 1)).expand_as(z)
        for _ in range(self.steps):
            with PlainOperations():
                output, memory = self.reading(torch.cat([z, read], -1), (h, memory))
            h = output + z
            read = (h @ support.mT).softmax(-1) @ support
        return h


@final
class Matching(EncodedLearner):
    r"""Classify by attention over the support set.

    .. math::
        p(k \mid x) = \sum_i a(x, x_i)\, y_{ik}, \qquad a(x, x_i) = \mathrm{softmax}_i(-d(f(x), g(x_i)) / T)

    Oriol Vinyals et al. 2016, "Matching networks for one shot learning", with the cosine, which is ``1 - d`` here, and
    T = 1. Its softmax lets no probability come near one; a learned temperature does.

    Args:
        encoder: maps ``(m, *features)`` to embeddings ``(m, d)``, or to maps where the distance is of maps.
        loss: what the query predictions are judged by.
        distance: d, of ``kshot.learners.metric.distances``, ``Correspondence(c)`` or any other.
        temperature: T; ``"learned"`` starts at one.
        context: embeds each example in the light of the whole support set; then the order of the support set matters.

    Raises:
        ValueError: the temperature is not above zero, or the encoder normalises by the batch.
    """

    def __init__(
        self,
        encoder: nn.Module,
        loss: Loss = cross_entropy,
        *,
        distance: Distance = cosine,
        temperature: float | Literal["learned"] = 1.0,
        context: FullContext | None = None,
    ) -> None:
        super().__init__(encoder, loss)
        self.distance, self.context = distance, context
        learned = temperature == "learned"
        start = 1.0 if learned else float(temperature)
        if not start > 0:
            raise ValueError(f"temperature must be above zero, or 'learned'; found {temperature}.")
        self.log_temperature = nn.Parameter(torch.tensor(start).log(), requires_grad=learned)
        self.order_sensitive = context is not None
        self.uses_unlabelled = context is not None

    def adapt(self, support: Batch) -> Batch:
        """Return the support set, each example as embedded alone and in context."""
        z = support.x
        return Batch((z, z if self.context is None else self.context.support(z)), support.y)

    def predict(self, state: Batch, x: Float[Tensor, "q ..."]) -> Float[Tensor, "q ways"]:
        """Return log-probabilities of the classes, up to a constant, ``(q, ways)``."""
        _, support = state.x
        x = x if self.context is None else self.context.queries(x, support)
        similarity = -self.distance(x, support) * (-self.log_temperature).exp()
        return class_logits(similarity, state.y, torch.logsumexp)

    def update(self, state: Batch, support: Batch) -> Batch:
        """Return the support set with more examples, and new classes where y has more columns."""
        return self.adapt(joined(Batch(state.x[0], state.y), support))
