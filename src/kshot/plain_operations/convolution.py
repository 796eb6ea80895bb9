"""Strided convolution as one matrix product for each set of weights.

Under vmap, weights of each task's own make a grouped convolution, whose derivatives run at a fraction of the processor's
rate. Patches laid side by side make it a batched product instead, which is as fast backwards as forwards. Patches
overlap by the kernel over the stride: at stride 1 they would be nine times the picture, and the grouped convolution is
no slower, so that one is left to torch (docs/LOG.md has the figures).
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["conv2d"]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Any:
    """Stand in for ``F.conv2d`` where its stride is at least 2."""
    if (
        isinstance(padding, str)
        or min(_pair(stride)) < 2
        or _pair(dilation) != (1, 1)
        or groups != 1
        or input.dim() != 4
    ):
        return NotImplemented
    windows = _Windows(tuple(weight.shape[2:]), _pair(stride), _pair(padding), tuple(input.shape[2:]))
    patches: Tensor = _ToPatches.apply(windows, input)  # type: ignore[no-untyped-call]
    output = patches @ weight.permute(2, 3, 1, 0).flatten(0, 2)
    return _channels_first(output if bias is None else output + bias)


def _channels_first(x: Tensor) -> Tensor:
    # As torch's convolution returns them, for modules that view them; contiguous() leaves strides alone at 1x1 pixels.
    return x.movedim(-1, 1).clone(memory_format=torch.contiguous_format)


def _pair(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])


@dataclass(frozen=True)
class _Windows:
    """Where a kernel looks at a picture; all of (height, width)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    picture: tuple[int, ...]


# Opaque to the compiler: its own code for these two copies takes twice as long to run, and to compile.
@torch.library.custom_op("kshot::to_patches", mutates_args=())
def _to_patches(
    pictures: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], picture: Sequence[int]
) -> Tensor:
    """Copy ``(n, channels, height, width)`` to ``(n, rows, columns, kernel * kernel * channels)``."""
    del picture
    (top, left), (down, right) = padding, stride
    padded = F.pad(pictures.movedim(1, -1), (0, 0, left, left, top, top))
    return padded.unfold(1, kernel[0], down).unfold(2, kernel[1], right).permute(0, 1, 2, 4, 5, 3).flatten(3)


@torch.library.custom_op("kshot::to_pictures", mutates_args=())
def _to_pictures(
    patches: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], picture: Sequence[int]
) -> Tensor:
    """Add ``(n, rows, columns, kernel * kernel * channels)`` up to ``(n, channels, height, width)``."""
    (height, width), (top, left), (down, right) = picture, padding, stride
    n, rows, columns, _ = patches.shape
    values = patches.view(n, rows, columns, *kernel, -1)
    padded = patches.new_zeros(n, height + 2 * top, width + 2 * left, values.shape[-1])
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            padded[:, i : i + down * rows : down, j : j + right * columns : right] += values[:, :, :, i, j]
    return _channels_first(padded[:, top : top + height, left : left + width])


@_to_patches.register_fake
def _(pictures: Tensor, kernel: Any, stride: Any, padding: Any, picture: Any) -> Tensor:
    rows, columns = ((picture[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    return pictures.new_empty(pictures.shape[0], rows, columns, kernel[0] * kernel[1] * pictures.shape[1])


@_to_pictures.register_fake
def _(patches: Tensor, kernel: Any, stride: Any, padding: Any, picture: Any) -> Tensor:
    del stride, padding
    return patches.new_empty(patches.shape[0], patches.shape[3] // (kernel[0] * kernel[1]), *picture)


class _Linear(torch.autograd.Function):
    """A linear function of x over examples: its derivative along a tangent is itself."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del output
        ctx.windows = inputs[0]

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[None, int], windows: _Windows, x: Tensor) -> tuple[Tensor, int]:
        examples = x.movedim(in_dims[1], 0).flatten(0, 1)
        result: Tensor = cls.apply(windows, examples)  # type: ignore[no-untyped-call]
        return result.reshape(info.batch_size, -1, *result.shape[1:]), 0


class _ToPatches(_Linear):
    @staticmethod
    def forward(windows: _Windows, x: Tensor) -> Tensor:
        patches: Tensor = _to_patches(x, *astuple(windows))
        return patches

    @staticmethod
    def jvp(ctx: Any, _: None, tangent: Tensor) -> Any:
        return _ToPatches.apply(ctx.windows, tangent)  # type: ignore[no-untyped-call]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[None, Any]:
        return None, _ToPictures.apply(ctx.windows, v)  # type: ignore[no-untyped-call]


class _ToPictures(_Linear):
    @staticmethod
    def forward(windows: _Windows, x: Tensor) -> Tensor:
        pictures: Tensor = _to_pictures(x, *astuple(windows))
        return pictures

    @staticmethod
    def jvp(ctx: Any, _: None, tangent: Tensor) -> Any:
        return _ToPictures.apply(ctx.windows, tangent)  # type: ignore[no-untyped-call]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[None, Any]:
        return None, _ToPatches.apply(ctx.windows, v)  # type: ignore[no-untyped-call]
