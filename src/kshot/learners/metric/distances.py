"""Distances between every query and every point: functions, or modules that learn, that any metric learner takes.

Each subtracts before it squares. The expanded form x^2 - 2xy + y^2 is faster, but loses all digits for close points. Each
can be differentiated twice, under vmap too, and has the gradient zero, not NaN, where two points coincide.
"""

from collections.abc import Callable
from typing import TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = [
    "Distance",
    "WeightedSquaredEuclidean",
    "cosine",
    "euclidean",
    "mahalanobis",
    "manhattan",
    "squared_euclidean",
]

Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # of (q, d) and (n, d), returns (q, n)


def squared_euclidean(x: Float[Tensor, "q d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "q n"]:
    r"""Return :math:`\lVert x_i - y_j \rVert^2` for every pair.

    >>> squared_euclidean(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[25.]])
    """
    return (x[:, None] - y).square().sum(-1)


def euclidean(x: Float[Tensor, "q d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "q n"]:
    r"""Return :math:`\lVert x_i - y_j \rVert` for every pair.

    >>> euclidean(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[5.]])
    """
    squared = squared_euclidean(x, y)
    apart = squared > 0  # the root's own gradient is infinite at zero
    return torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)


def manhattan(x: Float[Tensor, "q d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "q n"]:
    r"""Return :math:`\sum_k |x_{ik} - y_{jk}|` for every pair.

    >>> manhattan(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, -4.0]]))
    tensor([[7.]])
    """
    return (x[:, None] - y).abs().sum(-1)


def cosine(x: Float[Tensor, "q d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "q n"]:
    r"""Return :math:`1 - x_i \cdot y_j / (\lVert x_i \rVert \lVert y_j \rVert)` for every pair; the origin is 1 from all.

    It is half the squared distance of the two on the unit sphere, and computed so.

    >>> cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0]]))
    tensor([[0., 1., 2., 1.]])
    """
    (x, x_length), (y, y_length) = _on_sphere(x), _on_sphere(y)
    # A point at the origin has length 0 there, where all others have 1: the difference brings it to a distance of 1.
    return (squared_euclidean(x, y) + (1 - x_length) + (1 - y_length).mT) / 2


def _on_sphere(x: Tensor) -> tuple[Tensor, Tensor]:
    squared = x.square().sum(-1, keepdim=True)
    away = squared > 0
    return x * torch.where(away, torch.where(away, squared, 1).rsqrt(), 0), away.to(x.dtype)


def mahalanobis(
    x: Float[Tensor, "q d"], y: Float[Tensor, "n d"], roots: Float[Tensor, "n d d"]
) -> Float[Tensor, "q n"]:
    r"""Return :math:`(x_i - y_j)^\top \Sigma_j^{-1} (x_i - y_j)` for every pair.

    Args:
        x: queries.
        y: the means of Gaussians.
        roots: a lower triangle ``L`` for each of them with ``L L^T`` its covariance (``torch.linalg.cholesky``).

    >>> mahalanobis(torch.tensor([[2.0, 2.0]]), torch.zeros(1, 2), torch.diag(torch.tensor([1.0, 2.0]))[None])
    tensor([[5.]])
    """
    differences = (x[:, None] - y).permute(1, 2, 0)  # (n, d, q)
    whitened: Tensor = torch.linalg.solve_triangular(roots, differences, upper=False)
    return whitened.square().sum(1).mT


@final
class WeightedSquaredEuclidean(nn.Module):
    r"""A squared distance with a learned weight for each feature, :math:`\sum_k e^{a_k} (x_{ik} - y_{jk})^2`.

    Args:
        features: of an embedding; their weights start at one.

    >>> WeightedSquaredEuclidean(2)(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[25.]], grad_fn=<SumBackward1>)
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.log_weights = nn.Parameter(torch.zeros(features))

    def forward(self, x: Float[Tensor, "q d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "q n"]:
        """Return the distances ``(q, n)``."""
        return ((x[:, None] - y).square() * self.log_weights.exp()).sum(-1)
