"""An in-context transformer: support examples are tokens, and queries are read in the light of them."""

from typing import NamedTuple, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch
from kshot.learners.encoded import EncodedLearner
from kshot.losses import Loss, cross_entropy
from kshot.nets.transformer import ContextBlock, Heads
from kshot.plain_operations import PlainOperations
from kshot.validation import check_sizes

__all__ = ["Context", "InContext"]


class Context(NamedTuple):
    """What queries see of the support set: keys and values of each block, and the mean token of each class at the end.

    The means are ``(ways, width)``; that of a class without an example is at the origin.
    """

    blocks: tuple[Heads, ...]
    means: Tensor


@final
class InContext(EncodedLearner):
    r"""Let a transformer read the support set with its labels, and each query beside it, and compare what comes out.

    .. math::
        s_i = T\big(A f(x_i) + B c_{y_i} \mid s\big), \qquad q = T\big(A f(x) + u \mid s\big), \qquad
        p(k \mid x) \propto \exp\Big(-\tfrac{1}{\sqrt d}\, \big| P q - \operatorname{mean}_{y_i = k} P s_i \big|^2\Big)

    Support tokens attend to each other, a query to them and to itself; there are no positions. c are random codes of the
    labels, fixed in a buffer. In train mode each task deals them out anew, so that no class learns a code by heart and
    tasks of few classes teach those of many. u says that a label is not known. T begins as the identity, so that training
    starts from the nearest class mean and adds what the context tells; a query that has to spell the code of its class, as
    in the papers, learns far more slowly.

    Louis Kirsch et al. 2022, "General-purpose in-context learning by meta-learning transformers"; Christopher Fifty et al.
    2024, "Context-aware meta-learning".

    Args:
        encoder: maps ``(m, *features)`` to embeddings ``(m, features)``.
        features: of an embedding.
        loss: what the query predictions are judged by.
        width: d, of a token.
        blocks: of the transformer.
        heads: of each block's attention.
        max_ways: the most classes of a task, for each of which there is a code.
        code: numbers in a code.

    Raises:
        ValueError: a size is below one, or the heads do not divide the width.

    >>> from kshot.core import one_hot
    >>> learner = InContext(nn.Identity(), features=2).eval()
    >>> for ways in (2, 5):
    ...     context = learner.adapt(Batch(torch.randn(ways, 2), one_hot(range(ways), ways)))
    ...     learner.predict(context, torch.randn(7, 2)).shape
    torch.Size([7, 2])
    torch.Size([7, 5])
    """

    # An example without a label is a token as a query is. Masked out it could tell nothing; whoever has such examples
    # at test time trains with some.
    uses_unlabelled = True

    codes: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        features: int,
        loss: Loss = cross_entropy,
        *,
        width: int = 128,
        blocks: int = 3,
        heads: int = 4,
        max_ways: int = 100,
        code: int = 64,
    ) -> None:
        check_sizes(features=features, width=width, blocks=blocks, max_ways=max_ways, code=code)
        super().__init__(encoder, loss)
        self.example, self.label = nn.Linear(features, width), nn.Linear(code, width, bias=False)
        self.unknown = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(ContextBlock(width, heads, 2 * width) for _ in range(blocks))
        self.compared = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.register_buffer("codes", torch.randn(max_ways, code, generator=torch.Generator().manual_seed(0)))
        self._begin_with_the_identity()

    def adapt(self, support: Batch) -> Context:
        """Return what queries see of the support set.

        Raises:
            ValueError: there are more classes than codes, or embeddings have another number of features.
        """
        if support.x.shape[-1] != self.example.in_features:
            raise ValueError(
                f"this InContext was built for features={self.example.in_features}; found embeddings of "
                f"{support.x.shape[-1]}. Build one with as many as the encoder gives."
            )
        labels = self.label(support.y @ self._codes_of(support.y.shape[1]))
        x = self.example(support.x) + labels + (1 - support.y.sum(-1, keepdim=True)) * self.unknown
        seen = []
        with PlainOperations():
            for block in self._blocks():
                x, heads = block(x)
                seen.append(heads)
            members = self.compared(x)
        counts = support.y.sum(0)[:, None]
        return Context(tuple(seen), support.y.mT @ members / torch.where(counts > 0, counts, 1))

    def predict(self, state: Context, x: Float[Tensor, "q features"]) -> Float[Tensor, "q ways"]:
        """Return logits ``(q, ways)``."""
        x = self.example(x) + self.unknown
        with PlainOperations():
            for block, seen in zip(self._blocks(), state.blocks, strict=True):
                x = block.queries(x, seen)
            x = self.compared(x)
        # Summed differences: the expanded square loses all digits for close points in float32.
        distances: Tensor = (x[:, None] - state.means).square().sum(-1) / x.shape[-1] ** 0.5
        return -distances

    def _codes_of(self, ways: int) -> Float[Tensor, "ways code"]:
        codes = self.codes
        if ways > len(codes):
            raise ValueError(
                f"this InContext has codes for max_ways={len(codes)} classes; found a task of {ways}. "
                f"Build one with max_ways={ways} or more."
            )
        if self.training:
            codes = codes[torch.rand(len(codes), device=codes.device).argsort()]
        return codes[:ways]

    def _blocks(self) -> list[ContextBlock]:
        return cast(list[ContextBlock], list(self.blocks))

    def _begin_with_the_identity(self) -> None:
        ends = [layer for block in self._blocks() for layer in (block.read, block.hidden[-1])]
        for parameter in (self.label.weight, *(p for layer in ends for p in layer.parameters())):
            nn.init.zeros_(parameter)
