"""Attention in plain operations against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kshot.nets.attention import attend, attend_beside
from kshot.nets.transformer import ContextBlock

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("heads", [(), (2,)])
def test_attend_is_torchs_attention(heads: tuple[int, ...]) -> None:
    q, k, v = rows(*heads, 3, 4), rows(*heads, 5, 4), rows(*heads, 5, 6)
    torch.testing.assert_close(attend(q, k, v), F.scaled_dot_product_attention(q, k, v), **CLOSE)
    visible = torch.ones(3, 5, dtype=torch.bool).tril(1)
    expected = F.scaled_dot_product_attention(q, k, v, visible)
    torch.testing.assert_close(attend(q, k, v, visible), expected, **CLOSE)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_beside_others_each_attends_to_the_context_and_itself(n: int) -> None:
    q, k, v, context_k, context_v = rows(2, 3, 4), rows(2, 3, 4), rows(2, 3, 6), rows(2, n, 4), rows(2, n, 6)
    alone = [
        attend(
            q[:, i : i + 1],
            torch.cat([context_k, k[:, i : i + 1]], 1),
            torch.cat([context_v, v[:, i : i + 1]], 1),
        )
        for i in range(3)
    ]
    torch.testing.assert_close(attend_beside(q, k, v, context_k, context_v), torch.cat(alone, 1), **CLOSE)


def stock(block: ContextBlock, width: int, heads: int, hidden: int) -> nn.TransformerEncoderLayer:
    """Return torch's own layer with the weights of a block."""
    layer = nn.TransformerEncoderLayer(width, heads, hidden, 0.0, "gelu", batch_first=True, norm_first=True).double()
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": block.project.weight,
            "self_attn.in_proj_bias": block.project.bias,
            **{f"self_attn.out_proj.{name}": value for name, value in block.read.state_dict().items()},
            **{f"norm1.{name}": value for name, value in block.before_attention.state_dict().items()},
            **{f"norm2.{name}": value for name, value in block.before_hidden.state_dict().items()},
            **{f"linear1.{name}": value for name, value in block.hidden[0].state_dict().items()},
            **{f"linear2.{name}": value for name, value in block.hidden[2].state_dict().items()},
        }
    )
    return layer


@pytest.mark.parametrize("n", [1, 6])
def test_a_block_is_torchs_transformer_layer(n: int) -> None:
    block, context, queries = ContextBlock(8, 2, 12).double(), rows(n, 8), rows(3, 8)
    layer = stock(block, 8, 2, 12)
    found, seen = block(context)
    torch.testing.assert_close(found, layer(context), **CLOSE)
    # No query sees another, and no token of the context sees a query.
    hidden = torch.ones(n + 3, n + 3, dtype=torch.bool)
    hidden[:, :n], hidden[range(n, n + 3), range(n, n + 3)] = False, False
    together = layer(torch.cat([context, queries]), hidden)
    torch.testing.assert_close(block.queries(queries, seen), together[n:], **CLOSE)


def test_without_a_context_a_query_sees_itself() -> None:
    block, queries = ContextBlock(8, 2, 12).double(), rows(3, 8)
    nothing, seen = block(queries[:0])
    assert nothing.shape == (0, 8)
    alone = torch.cat([block(query[None])[0] for query in queries])
    torch.testing.assert_close(block.queries(queries, seen), alone, **CLOSE)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of heads; found 8 and 3"):
        ContextBlock(8, 3, 12)
