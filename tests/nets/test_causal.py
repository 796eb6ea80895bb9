"""Causal layers against the same layers over a whole sequence, and that none sees what comes later."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.nets.causal import CausalAttention, CausalLayer, CausalSequence, DenseBlock, temporal_convolutions

LAYERS: dict[str, Callable[[], CausalLayer]] = {
    "attention": lambda: CausalAttention(3, 4, 5),
    "dense block": lambda: DenseBlock(3, 2, 1),
    "dilated dense block": lambda: DenseBlock(3, 2, 4),
    "temporal convolutions": lambda: temporal_convolutions(3, 2, 6),
    "sequence": lambda: CausalSequence(
        CausalAttention(3, 4, 5), temporal_convolutions(8, 2, 4), CausalAttention(12, 2, 3)
    ),
}


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> CausalLayer:
    return LAYERS[request.param]().double()


def sequence(n: int) -> Tensor:
    return torch.randn(n, 3, dtype=torch.float64)


def whole(layer: CausalLayer, x: Tensor) -> Tensor:
    return layer(x, layer.init())[0]


@pytest.mark.parametrize("pieces", [[1] * 7, [3, 4], [0, 7], [5, 0, 2]])
def test_a_sequence_in_pieces_is_the_sequence(layer: CausalLayer, pieces: list[int]) -> None:
    x, past, found = sequence(7), layer.init(), []
    for piece in x.split(pieces):
        y, past = layer(piece, past)
        found.append(y)
    torch.testing.assert_close(torch.cat(found), whole(layer, x), rtol=1e-10, atol=1e-10)


def test_a_position_depends_on_itself_and_those_before_alone(layer: CausalLayer) -> None:
    x = sequence(5).requires_grad_()
    for t in range(5):
        (gradient,) = torch.autograd.grad(whole(layer, x)[t].square().sum(), x)
        assert gradient[t].abs().max() > 0
        assert gradient[t + 1 :].abs().max() == 0 if t < 4 else True


@pytest.mark.parametrize("n", [0, 1, 7])
def test_each_of_many_next_positions_is_as_if_it_alone_came_next(layer: CausalLayer, n: int) -> None:
    before, asked = sequence(n), sequence(4)
    _, past = layer(before, layer.init())
    expected = torch.stack([whole(layer, torch.cat([before, one[None]]))[-1] for one in asked])
    torch.testing.assert_close(layer.each_next(asked, past), expected, rtol=1e-10, atol=1e-10)


def test_what_is_found_is_joined_to_the_input(layer: CausalLayer) -> None:
    x = sequence(4)
    y = whole(layer, x)
    assert y.shape == (4, 3 + layer.added)
    assert torch.equal(y[:, :3], x)


@pytest.mark.parametrize("dilation", [1, 3])
def test_a_dense_block_is_a_gated_dilated_convolution(dilation: int) -> None:
    block, x = DenseBlock(3, 2, dilation).double(), sequence(6)
    kernel = torch.stack([block.earlier.weight, block.now.weight], -1)
    found = F.conv1d(F.pad(x.mT, (dilation, 0))[None], kernel, block.now.bias, dilation=dilation)[0].mT
    expected = torch.cat([x, found[:, :2].tanh() * found[:, 2:].sigmoid()], 1)
    torch.testing.assert_close(whole(block, x), expected, rtol=1e-10, atol=1e-10)


def test_causal_attention_is_softmax_over_the_positions_so_far() -> None:
    layer, x = CausalAttention(3, 4, 5).double(), sequence(6)
    q, k, v = layer.project(x).split([4, 4, 5], 1)
    rows = [((k[: t + 1] @ q[t]) / 2).softmax(0) @ v[: t + 1] for t in range(6)]
    torch.testing.assert_close(whole(layer, x), torch.cat([x, torch.stack(rows)], 1), rtol=1e-10, atol=1e-10)


def test_before_training_attention_reads_what_is_most_alike() -> None:
    layer = CausalAttention(8, 8, 8)
    torch.testing.assert_close(layer.project.weight[:8], layer.project.weight[8:16])
    assert not layer.project.bias[:16].any()
    layer.project.weight.data[16:] = torch.eye(8)  # values are the positions themselves
    layer.project.bias.data[16:] = 0
    seen, asked = 20 * torch.eye(8)[:5], 18 * torch.eye(8)[[3, 0]]
    _, past = layer(seen, layer.init())
    read = layer.each_next(asked, past)[:, 8:]
    torch.testing.assert_close(read, seen[[3, 0]], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("length", "dilations"), [(2, [1]), (3, [1, 2]), (6, [1, 2, 4]), (8, [1, 2, 4]), (21, [1, 2, 4, 8, 16])]
)
def test_the_last_position_of_the_length_sees_the_first(length: int, dilations: list[int]) -> None:
    block = temporal_convolutions(3, 2, length).double()
    assert [layer.dilation for layer in block.layers] == dilations
    x = sequence(2 * length).requires_grad_()
    (gradient,) = torch.autograd.grad(whole(block, x)[-1].square().sum(), x)
    seen = gradient.abs().sum(1) > 0
    assert seen[-length:].all()
    assert seen.sum() == 2 ** len(dilations)


@pytest.mark.parametrize("second", [False, True])
def test_a_second_derivative_under_vmap_is_that_of_a_loop(layer: CausalLayer, second: bool) -> None:
    def slope(x: Tensor) -> Tensor:
        return torch.func.grad(lambda x: (whole(layer, x).sin() ** 2).sum())(x).square().sum()

    def value(x: Tensor) -> Tensor:
        return slope(x) if second else whole(layer, x).square().sum()

    x = torch.randn(2, 4, 3, dtype=torch.float64)
    together = torch.func.grad(lambda x: torch.func.vmap(value)(x).sum())(x)
    apart = torch.stack([torch.func.grad(value)(one) for one in x])
    torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-10)


def test_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="layer 1 must take the 8 features before it; found 3"):
        CausalSequence(CausalAttention(3, 4, 5), DenseBlock(3, 2, 1))
    with pytest.raises(ValueError, match="at least one layer"):
        CausalSequence()
    with pytest.raises(ValueError, match="length must be at least 2, one position before the last; found 1"):
        temporal_convolutions(3, 2, 1)
