"""The distance of two pictures by their places, against its equation."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import vmap

from kshot.learners.metric import Correspondence


def learned(channels: int, reach: int) -> Correspondence:
    """Return one whose parameters are not as they start."""
    distance = Correspondence(channels, reach).double()
    with torch.no_grad():
        for weights in distance.parameters():
            weights.add_(torch.randn_like(weights), alpha=0.3)
    return distance


def one_way(distance: Correspondence, x: Tensor, y: Tensor) -> Tensor:
    """Return the sum over places of x of omega times m, place after place."""
    tau, reach = distance.log_tau.exp(), distance.reach
    omega = distance.weight(x[None])[0, 0].flatten().softmax(0).view(x.shape[1:])
    total = torch.tensor(0.0, dtype=x.dtype)
    height, width = x.shape[1:]
    for row in range(height):
        for column in range(width):
            found = torch.tensor(0.0, dtype=x.dtype)
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    i, j = row + down, column + right
                    if 0 <= i < height and 0 <= j < width:
                        log_beta = distance.log_beta[down + reach, right + reach]
                        log_beta = log_beta + distance.log_beta[reach - down, reach - right]
                        cosine = F.cosine_similarity(x[:, row, column], y[:, i, j], dim=0)
                        found = found + (log_beta + tau * (cosine - 1)).exp()
            total = total + omega[row, column] * found.log() / tau
    return total


def test_it_is_what_its_equation_says() -> None:
    distance = learned(3, 1)
    x, y = torch.randn(2, 3, 4, 3).double(), torch.randn(5, 3, 4, 3).double()
    expected = [
        [distance.bias - distance.log_scale.exp() * (one_way(distance, a, b) + one_way(distance, b, a)) for b in y]
        for a in x
    ]
    torch.testing.assert_close(distance(x, y), torch.stack([torch.stack(row) for row in expected]))


def test_it_is_the_same_both_ways() -> None:
    distance = learned(3, 2)
    x, y = torch.randn(4, 3, 5, 5).double(), torch.randn(6, 3, 5, 5).double()
    torch.testing.assert_close(distance(x, y), distance(y, x).mT)


def test_a_place_finds_its_like_within_reach_and_no_further() -> None:
    x = torch.zeros(1, 2, 1, 6)
    x[0, 0] = 1
    x[0, :, 0, 0] = torch.tensor([0.0, 1.0])
    near, far = x.roll(1, 3), x.roll(3, 3)
    distance = Correspondence(2, reach=1)
    same, moved, beyond = (distance(x, other).item() for other in (x, near, far))
    assert same < moved < beyond
    assert moved - same < (beyond - same) / 5


def test_its_two_derivatives_under_vmap_too() -> None:
    distance = learned(2, 1)
    x, y = (torch.randn(2, 2, 3, 3).double().requires_grad_() for _ in range(2))
    assert gradcheck(distance, (x, y))
    assert gradgradcheck(distance, (x, y))
    together = vmap(distance)(torch.stack([x, y]), torch.stack([y, x]))
    torch.testing.assert_close(together, torch.stack([distance(x, y), distance(y, x)]))


def test_places_wholly_unlike_still_have_a_gradient() -> None:
    distance = Correspondence(2, reach=0)
    with torch.no_grad():
        distance.log_tau.fill_(6.0)
    x = torch.tensor([1.0, 0.1]).view(1, 2, 1, 1).requires_grad_()
    distance(x, -torch.tensor([1.0, 0.2]).view(1, 2, 1, 1)).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).all()


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="an encoder that keeps maps"):
        # past the annotations, which only the tests check
        inspect.unwrap(Correspondence.forward)(Correspondence(2), torch.zeros(3, 2), torch.zeros(3, 2))


def test_blank_maps_have_a_finite_distance_and_gradient() -> None:
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    distances = Correspondence(3)(x, torch.randn(2, 3, 4, 4))
    distances.sum().backward()
    assert distances.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
