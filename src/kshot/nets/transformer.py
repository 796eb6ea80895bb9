"""The transformer block of in-context learning: a context read both ways, and queries that see it but not each other."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from kshot.nets.attention import attend, attend_beside
from kshot.validation import check_sizes

__all__ = ["ContextBlock", "Heads"]


class Heads(NamedTuple):
    """Keys and values of the context, ``(heads, n, d)`` each."""

    keys: Tensor
    values: Tensor


class ContextBlock(nn.Module):
    r"""One block of a transformer, normalised before each part.

    .. math::
        h = x + W\, \mathrm{attention}(\mathrm{norm}(x)), \qquad
        x' = h + W_2\, \mathrm{gelu}(W_1\, \mathrm{norm}(h))

    Context tokens attend to each other; a query attends to the context and to itself. There are no positions.

    Ashish Vaswani et al. 2017, "Attention is all you need"; Ruibin Xiong et al. 2020, "On layer normalization in the
    transformer architecture".

    Args:
        width: of a token.
        heads: of the attention, which share the width.
        hidden: of the two-layer net after it.

    Raises:
        ValueError: a size is below one, or the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        check_sizes(width=width, heads=heads, hidden=hidden)
        if width % heads:
            raise ValueError(f"width must be a multiple of heads; found {width} and {heads}.")
        self.heads = heads
        self.before_attention, self.before_hidden = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.read = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Float[Tensor, "n width"]) -> tuple[Float[Tensor, "n width"], Heads]:
        """Return the context tokens in the light of each other, and what queries see of them."""
        queries, keys, values = self._projected(x)
        return self._finished(x, attend(queries, keys, values)), Heads(keys, values)

    def queries(self, x: Float[Tensor, "q width"], context: Heads) -> Float[Tensor, "q width"]:
        """Return query tokens, each in the light of the context."""
        return self._finished(x, attend_beside(*self._projected(x), *context))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projected = self.project(self.before_attention(x)).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = projected.permute(1, 2, 0, 3)
        return queries, keys, values

    def _finished(self, x: Tensor, read: Tensor) -> Tensor:
        x = x + self.read(read.transpose(0, 1).flatten(1))
        finished: Tensor = x + self.hidden(self.before_hidden(x))
        return finished
