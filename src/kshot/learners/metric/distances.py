"""Distances between queries and prototypes."""

from jaxtyping import Float
from torch import Tensor

__all__ = ["squared_euclidean"]


def squared_euclidean(x: Float[Tensor, "q d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "q n"]:
    r"""Return :math:`\lVert x_i - y_j \rVert^2` for every pair.

    It sums squared differences: the expanded form x^2 - 2xy + y^2 is faster, but loses all digits for close points.

    >>> import torch
    >>> squared_euclidean(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[25.]])
    """
    return (x[:, None] - y).square().sum(-1)
