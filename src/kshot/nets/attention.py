"""Attention by plain operations, which differentiate twice under vmap where fused attention does not."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["attend", "attend_beside"]


def attend(
    queries: Float[Tensor, "*heads q d"],
    keys: Float[Tensor, "*heads n d"],
    values: Float[Tensor, "*heads n e"],
    visible: Bool[Tensor, "q n"] | None = None,
) -> Float[Tensor, "*heads q e"]:
    r"""Return what each query reads, :math:`\mathrm{softmax}(Q K^\top / \sqrt d)\, V`.

    Args:
        queries: Q.
        keys: K.
        values: V.
        visible: which query sees which key, all by default; each must see one.

    >>> attend(torch.zeros(1, 3), torch.randn(2, 3), torch.tensor([[1.0], [5.0]]))
    tensor([[3.]])
    """
    scores = queries @ keys.mT / keys.shape[-1] ** 0.5
    scores = scores if visible is None else scores.masked_fill(~visible, -torch.inf)
    read: Tensor = scores.softmax(-1) @ values
    return read


def attend_beside(
    queries: Float[Tensor, "*heads q d"],
    keys: Float[Tensor, "*heads q d"],
    values: Float[Tensor, "*heads q e"],
    context_keys: Float[Tensor, "*heads n d"],
    context_values: Float[Tensor, "*heads n e"],
) -> Float[Tensor, "*heads q e"]:
    """Return what each query reads from the context and itself, where it does not see the other queries.

    Args:
        queries: of each query.
        keys: of each query itself.
        values: of each query itself.
        context_keys: what all of them see; there may be none.
        context_values: what all of them read.

    >>> nothing, one = torch.zeros(1, 3), torch.tensor([[1.0]])
    >>> attend_beside(nothing, nothing, one, torch.randn(1, 3), torch.tensor([[5.0]]))
    tensor([[3.]])
    """
    itself = (queries * keys).sum(-1, keepdim=True)
    weights = (torch.cat([queries @ context_keys.mT, itself], -1) / keys.shape[-1] ** 0.5).softmax(-1)
    read: Tensor = weights[..., :-1] @ context_values + weights[..., -1:] * values
    return read
