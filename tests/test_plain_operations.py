"""Plain operations give the numbers of those they stand in for."""

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrizations

from kshot import plain_operations
from kshot.plain_operations import PlainOperations
from kshot.plain_operations.convolution import conv2d
from kshot.plain_operations.normalisation import moments

PICTURES = (5, 4, 6, 6)
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LayerNorm": (lambda: nn.LayerNorm((6, 6)), PICTURES),
    "LayerNorm without parameters": (lambda: nn.LayerNorm(6, elementwise_affine=False), PICTURES),
    "LayerNorm without bias": (lambda: nn.LayerNorm(6, bias=False), PICTURES),
    "BatchNorm of the batch": (lambda: nn.BatchNorm2d(4, track_running_stats=False), PICTURES),
    "BatchNorm of running averages": (lambda: nn.BatchNorm2d(4).eval(), PICTURES),
    "BatchNorm without parameters": (lambda: nn.BatchNorm2d(4, affine=False, track_running_stats=False), PICTURES),
    "InstanceNorm": (lambda: nn.InstanceNorm2d(4, affine=True, eps=0.1), PICTURES),
    "weight normalisation": (lambda: parametrizations.weight_norm(nn.Linear(6, 3)), (5, 6)),
    "weight normalisation of channels": (lambda: parametrizations.weight_norm(nn.Conv2d(4, 3, 2), dim=1), PICTURES),
    "weight normalisation as a whole": (lambda: parametrizations.weight_norm(nn.Linear(6, 3), dim=None), (5, 6)),
    "weight normalisation of a bias": (lambda: parametrizations.weight_norm(nn.Linear(6, 3), "bias"), (5, 6)),
    "attention": (lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0), (7, 5, 6)),
    "LSTM": (lambda: nn.LSTM(6, 3, 2, bidirectional=True), (7, 5, 6)),
    "LSTM without biases": (lambda: nn.LSTM(6, 3, bias=False, batch_first=True), (5, 7, 6)),
    "LSTM with projections": (lambda: nn.LSTM(6, 3, proj_size=2), (7, 5, 6)),
    "LSTM of one sequence": (lambda: nn.LSTM(6, 3), (7, 6)),
    "GRU": (lambda: nn.GRU(6, 3, 2, bidirectional=True, batch_first=True), (5, 7, 6)),
    "RNN of tanh": (lambda: nn.RNN(6, 3, 2), (7, 5, 6)),
    "RNN of ReLU": (lambda: nn.RNN(6, 3, nonlinearity="relu"), (7, 5, 6)),
    "LSTMCell": (lambda: nn.LSTMCell(6, 3), (5, 6)),
    "GRUCell": (lambda: nn.GRUCell(6, 3, bias=False), (5, 6)),
    "RNNCell": (lambda: nn.RNNCell(6, 3), (5, 6)),
    "RNNCell of ReLU": (lambda: nn.RNNCell(6, 3, nonlinearity="relu"), (5, 6)),
}


LEFT_TO_TORCH = {"BatchNorm of running averages", "LSTM with projections"}


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the list of functions that will have been replaced."""
    functions: list[Any] = []

    def noted(function: Any, stand_in: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if (result := stand_in(*args, **more)) is not NotImplemented:
                functions.append(function)
            return result

        return call

    table = plain_operations._STAND_INS
    monkeypatch.setattr(plain_operations, "_STAND_INS", {one: noted(one, table[one]) for one in table})
    return functions


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_the_same_numbers(name: str, replaced: list[Any]) -> None:
    make, shape = LAYERS[name]
    layer, x = make().double(), 3 + torch.randn(shape, dtype=torch.float64)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    with PlainOperations():
        ours = layer(x)
    torch.testing.assert_close(ours, layer(x), rtol=1e-10, atol=1e-10)
    assert bool(replaced) == (name not in LEFT_TO_TORCH)


def test_weight_normalisation_has_the_second_derivatives_that_torch_gets_wrong() -> None:
    v, g = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((4, 3), (4, 1)))

    def plainly(v: Tensor, g: Tensor) -> Tensor:
        with PlainOperations():
            return torch._weight_norm(v, g, 0)

    assert torch.autograd.gradgradcheck(plainly, (v, g), check_fwd_over_rev=True)


def parameters(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)


DIRECT: dict[str, Callable[[Tensor], Any]] = {
    "layer_norm": lambda x: torch.layer_norm(x, (6, 6), *parameters((6, 6))),
    "native_layer_norm": lambda x: torch.native_layer_norm(x, (6,), *parameters((6,)), 1e-5),
    "batch_norm": lambda x: torch.batch_norm(x, *parameters((4,)), None, None, True, 0.1, 1e-5, False),
    "instance_norm": lambda x: torch.instance_norm(x, *parameters((4,)), None, None, True, 0.1, 1e-5, False),
}


@pytest.mark.parametrize("name", DIRECT)
def test_what_is_called_without_a_layer_is_replaced_too(name: str, replaced: list[Any]) -> None:
    x = 3 + torch.randn(PICTURES, dtype=torch.float64)
    torch.manual_seed(0)
    with PlainOperations():
        ours = DIRECT[name](x)
    torch.manual_seed(0)
    torch.testing.assert_close(ours, DIRECT[name](x), rtol=1e-10, atol=1e-10)
    assert replaced == [getattr(torch, name)]


REFUSED: dict[str, Callable[[], Tensor]] = {
    "LayerNorm of other features": lambda: nn.LayerNorm(6)(torch.randn(5, 1)),
    "LayerNorm with a weight for others": lambda: F.layer_norm(torch.randn(5, 6), (6,), torch.ones(1)),
    "BatchNorm of other channels": lambda: F.batch_norm(torch.randn(5, 1), None, None, torch.ones(3), training=True),
    "BatchNorm of one value": lambda: nn.BatchNorm1d(3, track_running_stats=False)(torch.randn(1, 3)),
    "InstanceNorm of other channels": lambda: F.instance_norm(torch.randn(5, 1, 4), weight=torch.ones(3)),
    "InstanceNorm of one value": lambda: F.instance_norm(torch.randn(5, 3, 1)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_torch_refuses_is_refused(name: str) -> None:
    with pytest.raises((ValueError, RuntimeError)) as expected:
        REFUSED[name]()
    with PlainOperations(), pytest.raises(expected.type):
        REFUSED[name]()


CONVOLUTIONS: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]] = {
    "plain": ({}, (5, 4, 6, 6), (3, 4, 3, 3)),
    "strided, with a margin": ({"stride": (2, 3), "padding": (0, 1)}, (5, 4, 7, 6), (3, 4, 2, 3)),
    "dilated, in groups": ({"dilation": 2, "groups": 2, "padding": 1}, (2, 4, 6, 6), (6, 2, 3, 3)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_derivatives_of_a_convolution_are_those_of_torch(name: str) -> None:
    options, pictures, weights = CONVOLUTIONS[name]
    x, w, b = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in (pictures, weights, weights[:1])
    )
    torch.testing.assert_close(conv2d(x, w, b, **options), F.conv2d(x, w, b, **options))
    convolution = partial(conv2d, **options)
    assert torch.autograd.gradcheck(convolution, (x, w, b))
    assert torch.autograd.gradgradcheck(convolution, (x, w, b))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_derivatives_of_a_convolution_keep_their_layout_in_float32(name: str) -> None:
    """Where oneDNN computes them, with channels last on the way."""
    options, *shapes = CONVOLUTIONS[name]
    x, w = (torch.randn(shape, requires_grad=True) for shape in shapes)
    y = conv2d(x, w, **options)
    found, expected = (torch.autograd.grad(one.square().sum(), (x, w)) for one in (y, F.conv2d(x, w, **options)))
    assert all(one.is_contiguous() for one in found)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("axes", [(0, 0), (1, None), (None, 2)], ids=str)
def test_convolutions_of_many_tasks_are_those_of_each(name: str, axes: tuple[int | None, int | None]) -> None:
    """With tasks along any axis, or none; the second derivative goes through all three operations."""
    options, *shapes = CONVOLUTIONS[name]

    def curved(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        def loss(x: Tensor, w: Tensor) -> Tensor:
            return conv2d(x, w, **options).tanh().square().sum()

        inner = grad(loss, argnums=(0, 1))
        return grad(lambda x, w: sum(one.square().sum() for one in inner(x, w)), argnums=(0, 1))(x, w)

    alone = [torch.randn(3, *shape, dtype=torch.float64) for shape in shapes]
    expected = [
        curved(*(one[i if axis is not None else 0] for one, axis in zip(alone, axes, strict=True))) for i in range(3)
    ]
    inputs = [one[0] if axis is None else one.movedim(0, axis) for one, axis in zip(alone, axes, strict=True)]
    found = vmap(curved, in_dims=axes)(*inputs)
    for one, each in zip(found, zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(one, torch.stack(each), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stride", [(2,), np.int64(2)], ids=str)
def test_strides_that_torch_takes_are_taken(stride: Any) -> None:
    x, w = torch.randn(2, 3, 6, 6, requires_grad=True), torch.randn(4, 3, 3, 3)
    found = torch.autograd.grad(conv2d(x, w, stride=stride).sum(), x)
    torch.testing.assert_close(found, torch.autograd.grad(F.conv2d(x, w, stride=stride).sum(), x))


def test_gradients_of_pictures_may_be_changed_in_place() -> None:
    x, w = torch.randn(2, 3, 6, 6, requires_grad=True), torch.randn(4, 3, 3, 3)
    hidden = x * 1
    hidden.register_hook(lambda gradient: gradient.clamp_(-1, 1))
    found = torch.autograd.grad(conv2d(hidden, w).sum(), x, create_graph=True)[0]
    assert found.abs().max() <= 1


def test_convolutions_that_it_does_not_know_are_left_to_torch() -> None:
    x, w = torch.randn(4, 6, 6), torch.randn(3, 4, 3, 3)
    with PlainOperations(twice=True):
        alone, named = F.conv2d(x, w), F.conv2d(x[None], w, padding="same")
    torch.testing.assert_close(alone, F.conv2d(x, w))
    torch.testing.assert_close(named, F.conv2d(x[None], w, padding="same"))
    turned, v = x[None] * 1j, w * (1 + 1j)
    inner = partial(torch.autograd.functional.vjp, lambda v: F.conv2d(turned, v), v, torch.ones(1, 3, 4, 4) * 1j)
    with PlainOperations(twice=True):
        found = inner()
    torch.testing.assert_close(found, inner())
    with PlainOperations(twice=True), pytest.raises(RuntimeError, match="bias"):
        F.conv2d(x[None], w, torch.ones(1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["LayerNorm", "BatchNorm of the batch", "InstanceNorm"])
def test_half_precision_is_normalised_in_float32(name: str, dtype: torch.dtype) -> None:
    layer = LAYERS[name][0]()
    x = (100 + torch.randn(PICTURES)).to(dtype)  # a variance of these in half precision has no digit
    with PlainOperations():
        found = layer.to(dtype)(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), layer.float()(x.float()), rtol=1e-2, atol=2e-2)


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def test_compiled_moments_keep_their_digits() -> None:
    """Summed one after the other, as the compiler does over all axes at once, they are off by 6e-7."""
    x = (torch.randn(32, 5, 14, 14, 64) * 0.3 + 0.5).movedim(-1, 2)
    traced = make_fx(lambda x: moments(x, (1, 3, 4)))(x)
    compiled = torch.compile(traced, dynamic=False)
    for found, exact in zip(compiled(x), moments(x.double(), (1, 3, 4)), strict=True):
        assert (found - exact).norm() / exact.norm() < 1e-7


def test_packed_sequences_are_left_to_torch() -> None:
    for layer in (nn.LSTM(6, 3).double(), nn.GRU(6, 3).double()):
        packed = nn.utils.rnn.pack_padded_sequence(torch.randn(7, 2, 6, dtype=torch.float64), [7, 4])
        with PlainOperations():
            ours = layer(packed)[0].data
        torch.testing.assert_close(ours, layer(packed)[0].data)


def test_dropout_between_recurrent_layers_is_drawn() -> None:
    layer, x = nn.LSTM(6, 64, 2, dropout=0.5), torch.randn(7, 5, 6)
    first = nn.LSTM(6, 64, 2)
    first.load_state_dict(layer.state_dict())

    def run(layer: nn.Module) -> Tensor:
        with PlainOperations():
            return layer(x)[0]

    assert not torch.equal(run(layer), run(layer))
    torch.testing.assert_close(run(layer.eval()), run(first))
