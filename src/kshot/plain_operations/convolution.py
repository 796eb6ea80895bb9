"""Convolution as a gather and one matrix product, with the signature of ``torch.nn.functional.conv2d``.

Tasks have weights of their own, which makes a convolution over tasks a grouped one, and its second derivatives
convolutions with pictures for kernels. Processors do both far below their rate; products of a batch of matrices, whose
derivatives are products of the same kind, run close to it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["conv2d"]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Any:
    """Stand in for ``F.conv2d`` where it is neither dilated nor grouped."""
    if groups != 1 or dilation not in (1, (1, 1)) or isinstance(padding, str) or input.dim() != 4:
        return NotImplemented
    (down, right), (above, left) = _pair(stride), _pair(padding)
    outputs, channels, height, width = weight.shape
    x = F.pad(input, (left, left, above, above)).permute(0, 2, 3, 1)  # channels last: each gathers whole pixels
    rows, columns = (x.shape[1] - height) // down + 1, (x.shape[2] - width) // right + 1
    patches = torch.cat(
        [
            x[:, i : i + down * (rows - 1) + 1 : down, j : j + right * (columns - 1) + 1 : right]
            for i in range(height)
            for j in range(width)
        ],
        -1,
    )
    matrix = weight.permute(2, 3, 1, 0).reshape(height * width * channels, outputs)
    y = (patches.reshape(-1, len(matrix)) @ matrix).reshape(len(x), rows, columns, outputs)
    return (y if bias is None else y + bias).permute(0, 3, 1, 2)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
