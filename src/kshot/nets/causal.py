"""Layers over a sequence in which a position sees itself and what is before it, and which go on where they stopped.

What a layer must know of the positions so far is its *past*, a pytree of tensors, so that new positions cost nothing for
the old ones.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.nets.attention import attend, attend_beside

__all__ = ["CausalAttention", "CausalLayer", "CausalSequence", "DenseBlock", "Seen", "temporal_convolutions"]

Past: TypeAlias = Any  # a pytree of tensors


class CausalLayer(nn.Module, ABC):
    """A layer that joins what it finds to the features of each position; abstract.

    Args:
        features: of a position.
        added: features that it joins to them.
    """

    def __init__(self, features: int, added: int) -> None:
        super().__init__()
        self.features, self.added = features, added

    @abstractmethod
    def init(self) -> Past:
        """Return the past of the first position."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "n features"], past: Past) -> tuple[Float[Tensor, "n more"], Past]:
        """Return the next positions ``(n, features + added)``, and the past of those after them."""

    @abstractmethod
    def each_next(self, x: Float[Tensor, "q features"], past: Past) -> Float[Tensor, "q more"]:
        """Return each of many positions ``(q, features + added)`` as if it alone came next."""


class Seen(NamedTuple):
    """Keys ``(n, d)`` and values ``(n, e)`` of the positions so far."""

    keys: Tensor
    values: Tensor


@final
class CausalAttention(CausalLayer):
    r"""Join to each position what it reads from itself and the positions before it.

    .. math:: x_t' = \Big[x_t,\; \sum_{s \le t} \mathrm{softmax}_s(q_t \cdot k_s / \sqrt{d})\, v_s\Big]

    Queries, keys and values are affine maps of x. Nikhil Mishra et al. 2018, "A simple neural attentive meta-learner".
    Differently from there, those of queries and keys start as one orthogonal matrix, so that a position first reads itself
    and those that are like it, which from two unlike ones SNAIL took thousands of steps to learn.

    Args:
        features: of a position.
        keys: d.
        values: features that are read.
    """

    def __init__(self, features: int, keys: int, values: int) -> None:
        super().__init__(features, values)
        self.sizes = (keys, keys, values)
        self.project = nn.Linear(features, sum(self.sizes))
        alike = nn.init.orthogonal_(torch.empty(keys, features))
        self.project.weight.data[: 2 * keys] = alike.repeat(2, 1)
        nn.init.zeros_(self.project.bias.data[: 2 * keys])

    def init(self) -> Seen:
        """Return no keys and no values."""
        _, keys, values = self.sizes
        return Seen(self.project.weight.new_zeros(0, keys), self.project.weight.new_zeros(0, values))

    def forward(self, x: Float[Tensor, "n features"], past: Seen) -> tuple[Float[Tensor, "n more"], Seen]:
        """Return the next positions, and what is seen by those after them."""
        queries, keys, values = self.project(x).split(self.sizes, -1)
        seen = Seen(torch.cat([past.keys, keys]), torch.cat([past.values, values]))
        before = len(past.keys)
        visible = torch.ones(len(x), before + len(x), dtype=torch.bool, device=x.device).tril(before)
        return torch.cat([x, attend(queries, *seen, visible)], -1), seen

    def each_next(self, x: Float[Tensor, "q features"], past: Seen) -> Float[Tensor, "q more"]:
        """Return each position as if it alone came next."""
        queries, keys, values = self.project(x).split(self.sizes, -1)
        return torch.cat([x, attend_beside(queries, keys, values, *past)], -1)


@final
class DenseBlock(CausalLayer):
    r"""Join to each position a gated convolution of it and of the one some positions before.

    .. math::
        x_t' = [x_t,\; \tanh(f_t) \odot \sigma(g_t)], \qquad (f_t, g_t) = W x_t + V x_{t - r} + b

    Before the first position there are zeros. Nikhil Mishra et al. 2018, "A simple neural attentive meta-learner".

    Args:
        features: of a position.
        filters: features that are joined.
        dilation: r.
    """

    def __init__(self, features: int, filters: int, dilation: int) -> None:
        super().__init__(features, filters)
        self.now = nn.Linear(features, 2 * filters)
        self.earlier = nn.Linear(features, 2 * filters, bias=False)
        self.dilation = dilation

    def init(self) -> Float[Tensor, "dilation features"]:
        """Return zeros for the positions before the first."""
        return self.now.weight.new_zeros(self.dilation, self.features)

    def forward(
        self, x: Float[Tensor, "n features"], past: Float[Tensor, "dilation features"]
    ) -> tuple[Float[Tensor, "n more"], Float[Tensor, "dilation features"]]:
        """Return the next positions, and the last ``dilation`` inputs."""
        inputs = torch.cat([past, x])
        return self._joined(x, inputs[: len(x)]), inputs[len(x) :]

    def each_next(
        self, x: Float[Tensor, "q features"], past: Float[Tensor, "dilation features"]
    ) -> Float[Tensor, "q more"]:
        """Return each position as if it alone came next."""
        return self._joined(x, past[:1])

    def _joined(self, x: Tensor, earlier: Tensor) -> Tensor:
        found, gate = (self.now(x) + self.earlier(earlier)).chunk(2, -1)
        return torch.cat([x, found.tanh() * gate.sigmoid()], -1)


@final
class CausalSequence(CausalLayer):
    """Causal layers one after the other.

    Args:
        layers: of which each takes the features that the one before gives.

    Raises:
        ValueError: there is no layer, or the features of two neighbours do not fit.
    """

    def __init__(self, *layers: CausalLayer) -> None:
        if not layers:
            raise ValueError("CausalSequence expects at least one layer; found none.")
        super().__init__(layers[0].features, sum(layer.added for layer in layers))
        features = self.features
        for i, layer in enumerate(layers):
            if layer.features != features:
                raise ValueError(f"layer {i} must take the {features} features before it; found {layer.features}.")
            features += layer.added
        self.layers = nn.ModuleList(layers)

    def init(self) -> tuple[Past, ...]:
        """Return the past of the first position for each layer."""
        return tuple(layer.init() for layer in self._layers())

    def forward(
        self, x: Float[Tensor, "n features"], past: tuple[Past, ...]
    ) -> tuple[Float[Tensor, "n more"], tuple[Past, ...]]:
        """Return the next positions, and the past of each layer for those after them."""
        after = []
        for layer, its_past in zip(self._layers(), past, strict=True):
            x, its_past = layer.forward(x, its_past)
            after.append(its_past)
        return x, tuple(after)

    def each_next(self, x: Float[Tensor, "q features"], past: tuple[Past, ...]) -> Float[Tensor, "q more"]:
        """Return each position as if it alone came next."""
        for layer, its_past in zip(self._layers(), past, strict=True):
            x = layer.each_next(x, its_past)
        return x

    def _layers(self) -> list[CausalLayer]:
        return list(self.layers)  # type: ignore[arg-type]


def temporal_convolutions(features: int, filters: int, length: int) -> CausalSequence:
    """Return dense blocks of dilations 1, 2, 4 and so on, through which the last of ``length`` positions sees the first.

    A longer sequence is taken too, of which a position sees the part that the dilations reach. Nikhil Mishra et al. 2018,
    "A simple neural attentive meta-learner".

    Args:
        features: of a position.
        filters: features that each block joins.
        length: of the sequence.

    Raises:
        ValueError: the length is below 2.

    >>> block = temporal_convolutions(3, 8, length=6)
    >>> [layer.dilation for layer in block.layers], block(torch.zeros(6, 3), block.init())[0].shape
    ([1, 2, 4], torch.Size([6, 27]))
    """
    if length < 2:
        raise ValueError(f"length must be at least 2, one position before the last; found {length}.")
    count = math.ceil(math.log2(length))
    return CausalSequence(*(DenseBlock(features + i * filters, filters, 2**i) for i in range(count)))
