"""Normalisation in plain operations, with the signatures of ``torch.nn.functional`` and of ``torch`` itself.

Each returns NotImplemented for arguments that torch's own function handles exactly, fixed statistics, say, and for those
that it refuses.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "batch_norm",
    "instance_norm",
    "layer_norm",
    "moments",
    "native_layer_norm",
    "normalised",
    "per_channel",
    "torch_layer_norm",
    "weight_norm",
    "weights_first",
]


def moments(x: Tensor, axes: tuple[int, ...], keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance over some axes, in float32 at least."""
    x = _wide(x)
    mean = _mean(x, axes)
    # E[(x - mean)^2] rather than E[x^2] - mean^2, which loses every digit when the mean is large.
    variance = _mean((x - mean).square(), axes)
    return (mean, variance) if keepdim else (mean.squeeze(list(axes)), variance.squeeze(list(axes)))


def _wide(x: Tensor) -> Tensor:
    # Under autocast activations have 8 or 11 bits, as for torch's own normalisation, which widens them inside.
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _mean(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    # Axis by axis: the compiler adds one number after the other, which over all axes at once loses a digit.
    for axis in reversed(axes):
        x = x.mean(axis, keepdim=True)
    return x


def per_channel(x: Tensor, channels: Tensor) -> Tensor:
    """Shape ``(channels,)`` so that it meets axis 1 of x."""
    return channels.view(-1, *[1] * (x.dim() - 2))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    """Stand in for ``F.layer_norm``."""
    result = native_layer_norm(input, normalized_shape, weight, bias, eps)
    return result if result is NotImplemented else result[0]


def torch_layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    """Stand in for ``torch.layer_norm``."""
    del cudnn_enable
    return layer_norm(input, normalized_shape, weight, bias, eps)


def native_layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Any:
    """Stand in for ``torch.native_layer_norm``, which returns mean and reciprocal deviation too."""
    shape = tuple(normalized_shape)
    if not shape or tuple(input.shape[-len(shape) :]) != shape or not _have_shape(shape, weight, bias):
        return NotImplemented
    mean, variance = moments(input, tuple(range(-len(shape), 0)), keepdim=True)
    scale = (variance + eps).rsqrt()
    y = (_wide(input) - mean) * scale
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).to(input.dtype), mean, scale


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Stand in for ``F.batch_norm`` by the statistics of the batch."""
    del momentum
    if running_mean is not None or running_var is not None or not training:
        return NotImplemented
    return _by_statistics(input, (0, *range(2, input.dim())), weight, bias, eps)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Stand in for ``F.instance_norm`` by the statistics of each example."""
    del momentum
    if running_mean is not None or running_var is not None or not use_input_stats:
        return NotImplemented
    return _by_statistics(input, tuple(range(2, input.dim())), weight, bias, eps)


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Stand in for ``torch._weight_norm``, which weight normalisation calls: g for the length of v along all axes but one.

    Its second derivatives are off by 20 to 90 % on torch 2.13, with or without vmap, and it has no forward derivative.
    """
    squares = v.square()
    axes = [axis for axis in range(v.dim()) if dim == -1 or axis != dim % v.dim()]  # -1 keeps no axis
    return v * (g / (squares.sum(axes, keepdim=True) if axes else squares).sqrt())


def weights_first(stand_in: Callable[..., Any]) -> Callable[..., Any]:
    """Make of a stand-in for ``F.batch_norm`` or ``F.instance_norm`` one for torch's own, which takes the weights first."""

    def of_torch(
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        *others: Any,
        **named: Any,
    ) -> Any:
        named.pop("cudnn_enabled", None)
        return stand_in(input, running_mean, running_var, weight, bias, *others[:3], **named)

    return of_torch


def _have_shape(shape: tuple[int, ...], *parameters: Tensor | None) -> bool:
    return all(parameter is None or tuple(parameter.shape) == shape for parameter in parameters)


def _by_statistics(x: Tensor, axes: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    values = math.prod(x.shape[axis] for axis in axes)
    if x.dim() < 2 or values < 2 or not _have_shape(tuple(x.shape[1:2]), weight, bias):
        return NotImplemented  # torch has an error for it
    mean, variance = moments(x, axes, keepdim=True)
    return normalised(x, mean, variance, weight, bias, eps)


def normalised(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Normalise by moments that broadcast against x, then scale and shift each channel."""
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * per_channel(x, weight)
    # The mean goes first: folded into the bias it would cost digits where it is large.
    y = (_wide(x) - mean) * scale
    return (y if bias is None else y + per_channel(x, bias)).to(x.dtype)
