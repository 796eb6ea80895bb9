"""Kernels: how alike two embeddings are, ``(n, d)`` and ``(m, d)`` to ``(n, m)``."""

from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

__all__ = ["Kernel", "gaussian", "linear"]

Kernel: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def linear(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    r"""Return :math:`x^\top y / d`: functions are weighted sums of the features.

    >>> import torch
    >>> linear(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[5.5000]])
    """
    return x @ y.mT / x.shape[1]


def gaussian(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    r"""Return :math:`\exp(-\lVert x - y \rVert^2 / 2)`: functions are smooth in the features, whose scale is a length scale.

    >>> import torch
    >>> gaussian(torch.tensor([[0.0]]), torch.tensor([[0.0], [1.0]]))
    tensor([[1.0000, 0.6065]])
    """
    return (-(x[:, None] - y).square().sum(-1) / 2).exp()
