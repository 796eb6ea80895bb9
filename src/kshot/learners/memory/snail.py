"""SNAIL: convolutions over time and causal attention read the support set as a sequence, of which a query is the end."""

from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch
from kshot.learners.encoded import EncodedLearner
from kshot.losses import Loss, cross_entropy
from kshot.nets.causal import CausalAttention, CausalLayer, CausalSequence, temporal_convolutions
from kshot.validation import check_sizes

__all__ = ["SNAIL"]


@final
class SNAIL(EncodedLearner):
    r"""Read labelled examples one after the other, and answer an example without a label at the end.

    .. math:: \hat y(x) = W\, h_{n+1}\big((f(x_1), y_1), \dots, (f(x_n), y_n), (f(x), 0)\big) + b

    h are attention blocks with temporal convolutions between them; each layer sees a position and those before it, and
    joins what it finds to its input. The state is what every layer must know of the examples so far, so that ``update``
    computes the new ones alone. Each query is computed as if it alone came next.

    Nikhil Mishra, Mostafa Rohaninejad, Xi Chen, Pieter Abbeel 2018, "A simple neural attentive meta-learner"; the sizes
    are those for Omniglot.

    Args:
        encoder: maps ``(m, *features)`` to embeddings ``(m, features)``.
        features: of an embedding.
        ways: classes, or numbers in a target.
        length: the longest sequence that the convolutions span, its query included; longer supports are taken too.
        loss: what the query predictions are judged by.
        attention: keys and values of each attention block.
        filters: of each convolution.

    Raises:
        ValueError: a size is below one, or there is no attention.

    >>> from kshot.core import one_hot
    >>> learner = SNAIL(nn.Identity(), features=3, ways=2, length=5)
    >>> support = Batch(torch.randn(4, 3), one_hot([0, 1, 1, 0], 2))
    >>> state = learner.init()
    >>> for x, y in zip(*support):
    ...     state = learner.update(state, Batch(x[None], y[None]))
    >>> whole = learner.predict(learner.adapt(support), torch.ones(1, 3))
    >>> learner.predict(state, torch.ones(1, 3)).allclose(whole, atol=1e-6)
    True
    """

    order_sensitive = True
    fixed_ways = True
    uses_unlabelled = True  # it is a position of the sequence like any other

    def __init__(
        self,
        encoder: nn.Module,
        features: int,
        ways: int,
        length: int,
        loss: Loss = cross_entropy,
        *,
        attention: Sequence[tuple[int, int]] = ((64, 32), (256, 128), (512, 256)),
        filters: int = 128,
    ) -> None:
        check_sizes(features=features, ways=ways, length=length, filters=filters, attention=len(attention))
        for keys, values in attention:
            check_sizes(keys=keys, values=values)
        super().__init__(encoder, loss)
        self.layers = CausalSequence(*_layers(features + ways, length, attention, filters))
        self.answer = nn.Linear(self.layers.features + self.layers.added, ways)
        self.ways = ways

    def init(self) -> tuple[Any, ...]:
        """Return what the layers know before the first example."""
        return self.layers.init()

    def update(self, state: tuple[Any, ...], support: Batch) -> tuple[Any, ...]:
        """Return what the layers know after some more examples.

        Raises:
            ValueError: x has another number of features or y of classes than the learner was built for.
        """
        if support.y.shape[1] != self.ways:
            raise ValueError(
                f"this SNAIL was built for ways={self.ways}; found y with {support.y.shape[1]} columns. Labels are part "
                "of its input: build and train one with as many ways."
            )
        if support.x.shape[-1] + self.ways != self.layers.features:
            raise ValueError(
                f"this SNAIL was built for features={self.layers.features - self.ways}; found embeddings of "
                f"{support.x.shape[-1]}. Build one with as many as the encoder gives."
            )
        _, after = self.layers(torch.cat([support.x, support.y], -1), state)
        return tuple(after)

    def adapt(self, support: Batch) -> tuple[Any, ...]:
        """Return what the layers know after the support set."""
        return self.update(self.init(), support)

    def predict(self, state: tuple[Any, ...], x: Float[Tensor, "q features"]) -> Float[Tensor, "q ways"]:
        """Return logits or targets, ``(q, ways)``."""
        asked = torch.cat([x, x.new_zeros(len(x), self.ways)], -1)
        predictions: Tensor = self.answer(self.layers.each_next(asked, state))
        return predictions


def _layers(features: int, length: int, attention: Sequence[tuple[int, int]], filters: int) -> list[CausalLayer]:
    layers: list[CausalLayer] = []
    for i, (keys, values) in enumerate(attention):
        if i > 0:
            layers.append(temporal_convolutions(features, filters, length))
            features += layers[-1].added
        layers.append(CausalAttention(features, keys, values))
        features += values
    return layers
