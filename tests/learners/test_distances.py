"""Distances against their definitions, in float32 too, and their derivatives."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import vmap

from kshot.learners.metric import distances
from kshot.learners.metric.distances import Distance


def weighted(x: Tensor, y: Tensor) -> Tensor:
    distance = distances.WeightedSquaredEuclidean(x.shape[1]).to(x.dtype)
    with torch.no_grad():
        distance.log_weights.copy_(torch.linspace(-1, 1, x.shape[1]))
    return distance(x, y)


def mahalanobis(x: Tensor, y: Tensor) -> Tensor:
    return distances.mahalanobis(x, y, torch.linalg.cholesky(covariances(y)))


def covariances(y: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(*y.shape, y.shape[1], generator=generator).to(y.dtype)
    return root @ root.mT + torch.eye(y.shape[1], dtype=y.dtype)


DISTANCES: dict[str, Distance] = {
    "squared Euclidean": distances.squared_euclidean,
    "Euclidean": distances.euclidean,
    "Manhattan": distances.manhattan,
    "cosine": distances.cosine,
    "weighted": weighted,
    "Mahalanobis": mahalanobis,
}


def by_definition(name: str, a: Tensor, b: Tensor, covariance: Tensor) -> Tensor:
    difference = a - b
    match name:
        case "squared Euclidean":
            return difference @ difference
        case "Euclidean":
            return difference.norm()
        case "Manhattan":
            return difference.norm(p=1)
        case "cosine":
            return 1 - a @ b / (a.norm() * b.norm())
        case "weighted":
            return (torch.linspace(-1, 1, len(a)).exp() * difference.square()).sum()
        case _:
            return difference @ covariance.inverse() @ difference


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_is_what_its_equation_says(name: str) -> None:
    x, y = torch.randn(4, 3).double(), torch.randn(5, 3).double()
    rows = [[by_definition(name, a, b, c) for b, c in zip(y, covariances(y), strict=True)] for a in x]
    torch.testing.assert_close(DISTANCES[name](x, y), torch.tensor(rows).double(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", DISTANCES)
def test_first_and_second_derivatives_are_right(name: str) -> None:
    x, y = (torch.randn(n, 3).double().requires_grad_() for n in (2, 4))
    assert gradcheck(DISTANCES[name], (x, y))
    assert gradgradcheck(DISTANCES[name], (x, y))


@pytest.mark.parametrize("name", DISTANCES)
def test_derivatives_are_finite_where_points_coincide_or_vanish(name: str) -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 2.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(DISTANCES[name](points, points).sum(), points, create_graph=True)
    assert gradient.isfinite().all()
    if gradient.requires_grad:  # a constant gradient has no second derivative
        second = torch.autograd.grad(gradient.square().sum(), points, allow_unused=True)[0]
        assert second is None or second.isfinite().all()


@pytest.mark.parametrize("name", DISTANCES)
def test_close_points_far_from_the_origin_keep_their_digits_in_float32(name: str) -> None:
    x, y = (10 + 1e-2 * torch.randn(n, 8) for n in (20, 5))
    exact = DISTANCES[name](x.double(), y.double())
    # What the cosine squares is the difference on the unit sphere, to which float32 has rounded the points themselves.
    tolerance = 1e-4 if name in ("cosine", "Mahalanobis") else 1e-6
    assert ((DISTANCES[name](x, y) - exact) / exact).abs().median() < tolerance


@pytest.mark.parametrize("name", [name for name in DISTANCES if name != "Mahalanobis"])
def test_vmap_gives_the_same_distances(name: str) -> None:
    x, y = torch.randn(3, 4, 6), torch.randn(3, 5, 6)
    one_by_one = torch.stack([DISTANCES[name](a, b) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(vmap(DISTANCES[name])(x, y), one_by_one)
