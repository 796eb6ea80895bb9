"""Convolution whose derivatives, of any order, are convolutions.

Convolution is linear in the pictures and in the weights, and so are its two derivatives. Of the three operations

* ``y = convolution(x, w)``, ``x = to_pictures(y, w)`` and ``w = to_weights(y, x)``

each is the derivative of the others. torch's own second derivative to the weights is another convolution instead, with a
picture for its kernel; where tasks with weights of their own are groups of channels, it takes group after group.
docs/LOG.md has the figures.
"""

from typing import Any, NamedTuple, SupportsIndex, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

__all__ = ["conv2d"]

Gradients: TypeAlias = tuple[Tensor | None, ...]
Operation: TypeAlias = type["_Bilinear"]


class _Geometry(NamedTuple):
    """What a convolution needs beside tensors."""

    pictures: tuple[int, ...]
    weights: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def more_examples(self, tasks: int) -> "_Geometry":
        """Take tasks that share their weights for more examples of one task."""
        return self._replace(pictures=(tasks * self.pictures[0], *self.pictures[1:]))

    def more_groups(self, tasks: int) -> "_Geometry":
        """Take tasks with weights of their own for more groups of channels."""
        examples, channels, *size = self.pictures
        weights = (tasks * self.weights[0], *self.weights[1:])
        return self._replace(pictures=(examples, tasks * channels, *size), weights=weights, groups=tasks * self.groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Stand in for ``F.conv2d``.

    A picture without an axis of examples, padding by name, complex numbers and autocast are left to torch, and what it
    refuses.
    """
    if isinstance(padding, str) or input.dim() != 4 or torch.is_autocast_enabled(input.device.type):
        return NotImplemented
    if input.is_complex() or weight.is_complex() or (bias is not None and bias.shape != weight.shape[:1]):
        return NotImplemented
    geometry = _Geometry(
        tuple(input.shape), tuple(weight.shape), _pair(stride), _pair(padding), _pair(dilation), groups
    )
    output = _apply(_Convolution, geometry, input, weight)
    return output if bias is None else output + bias[:, None, None]


def _pair(value: Any) -> tuple[int, ...]:
    sizes = (int(value),) if isinstance(value, SupportsIndex) else tuple(map(int, value))
    return sizes * 2 if len(sizes) == 1 else sizes


def _apply(operation: Operation, geometry: _Geometry, a: Tensor, b: Tensor) -> Tensor:
    result: Tensor = operation.apply(geometry, a, b)  # type: ignore[no-untyped-call]
    return result


class _Bilinear(torch.autograd.Function):
    """A function of two tensors that is linear in each."""

    to_weights = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del output
        ctx.geometry, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], geometry: _Geometry, a: Tensor, b: Tensor) -> tuple[Tensor, int]:
        # torch's generated rule would lay tasks out as the first axis each time, and copy.
        tasks, (_, a_axis, b_axis) = info.batch_size, in_dims
        if b_axis is None and not cls.to_weights:
            result = _apply(cls, geometry.more_examples(tasks), _joined(a, a_axis, 0, tasks), b)
            return _split(result, 0, tasks), 0
        a, b = _joined(a, a_axis, 1, tasks), _joined(b, b_axis, 1 if cls.to_weights else 0, tasks)
        axis = 0 if cls.to_weights else 1
        return _split(_apply(cls, geometry.more_groups(tasks), a, b), axis, tasks), axis


def _joined(x: Tensor, task_axis: int | None, axis: int, tasks: int) -> Tensor:
    """Make one axis of the tasks and another, which has them all beside each other."""
    x = x.unsqueeze(axis) if task_axis is None else x.movedim(task_axis, axis)
    return x.expand(*x.shape[:axis], tasks, *x.shape[axis + 1 :]).flatten(axis, axis + 1)


def _split(x: Tensor, axis: int, tasks: int) -> Tensor:
    return x.reshape(*x.shape[:axis], tasks, -1, *x.shape[axis + 1 :])


def _transposed(geometry: _Geometry, y: Tensor, w: Tensor) -> Tensor:
    """Return the pictures.

    On a CPU oneDNN leaves them with channels last. torch's own copy into the usual layout takes as long as the arithmetic,
    the compiler's a tenth of that where it is a loop of its own.
    """
    if y.device.type == "cpu":
        y = _laid_out(y, torch.channels_last)
    _, _, stride, padding, dilation, groups = geometry
    sides = zip(geometry.pictures[2:], y.shape[2:], w.shape[2:], stride, padding, dilation, strict=True)
    left = [side - (out - 1) * s + 2 * p - d * (k - 1) - 1 for side, out, k, s, p, d in sides]
    return _laid_out(F.conv_transpose2d(y, w, None, stride, padding, left, groups, dilation), torch.contiguous_format)


def _laid_out(x: Tensor, layout: torch.memory_format) -> Tensor:
    x = x.contiguous(memory_format=layout)
    if get_proxy_mode() is None:
        return x
    return x.as_strided(x.shape, x.stride())  # which the compiler must have in memory: it fuses the copy with nothing


class _Convolution(_Bilinear):
    @staticmethod
    def forward(geometry: _Geometry, x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(x, w, None, *geometry[2:])

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Gradients:
        (x, w), (_, to_x, to_w) = ctx.saved_tensors, ctx.needs_input_grad
        return (
            None,
            _apply(_ToPictures, ctx.geometry, v, w) if to_x else None,
            _apply(_ToWeights, ctx.geometry, v, x) if to_w else None,
        )


class _ToPictures(_Bilinear):
    @staticmethod
    def forward(geometry: _Geometry, y: Tensor, w: Tensor) -> Tensor:
        return _transposed(geometry, y, w)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Gradients:
        (y, w), (_, to_y, to_w) = ctx.saved_tensors, ctx.needs_input_grad
        return (
            None,
            _apply(_Convolution, ctx.geometry, v, w) if to_y else None,
            _apply(_ToWeights, ctx.geometry, y, v) if to_w else None,
        )


class _ToWeights(_Bilinear):
    to_weights = True

    @staticmethod
    def forward(geometry: _Geometry, y: Tensor, x: Tensor) -> Tensor:
        # Of the weights only the size counts: torch's ``conv2d_weight`` expands one number, and copies it into that size.
        w, options = y.new_empty(geometry.weights), (*geometry[2:5], False, [0], geometry.groups)
        gradients: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
            y, x, w, None, *options, (False, True, False)
        )
        return gradients[1]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Gradients:
        (y, x), (_, to_y, to_x) = ctx.saved_tensors, ctx.needs_input_grad
        return (
            None,
            _apply(_Convolution, ctx.geometry, x, v) if to_y else None,
            _apply(_ToPictures, ctx.geometry, y, v) if to_x else None,
        )
