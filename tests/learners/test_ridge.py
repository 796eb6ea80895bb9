"""The closed-form head against least squares and against its other closed form."""

import pytest
import torch
from torch import nn

from kshot.core import Batch, one_hot
from kshot.learners.gradient import Ridge
from kshot.losses import mean_squared_error


@pytest.mark.parametrize(("n", "d"), [(12, 4), (4, 12)])
def test_without_a_penalty_it_is_lstsq(n: int, d: int) -> None:
    x, y = torch.randn(n, d).double(), torch.randn(n, 2).double()
    learner = Ridge(nn.Identity(), mean_squared_error, penalty=1e-12).double()
    with_ones = torch.cat([x, torch.ones(n, 1).double()], 1)
    # gelsd gives the shortest solution where there are many, as the limit of ridge regression does
    expected = torch.linalg.lstsq(with_ones, y, driver="gelsd").solution
    torch.testing.assert_close(learner.adapt(Batch(x, y)), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(12, 4), (4, 12)])
def test_it_minimises_the_penalised_squared_error(n: int, d: int) -> None:
    x, y = torch.randn(n, d).double(), torch.randn(n, 2).double()
    learner = Ridge(nn.Identity(), mean_squared_error, penalty=0.7).double()
    weights = learner.adapt(Batch(x, y)).detach().requires_grad_()
    with_ones = torch.cat([x, torch.ones(n, 1).double()], 1)
    loss = (with_ones @ weights - y).square().sum() + 0.7 * weights.square().sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


def test_an_unlabelled_example_weighs_nothing_but_a_target_of_zeros_does() -> None:
    x, y = torch.randn(5, 3), one_hot([0, 1, 2, 0, 1], 3)
    more = Batch(torch.cat([x, torch.randn(1, 3)]), torch.cat([y, torch.zeros(1, 3)]))
    labels, numbers = Ridge(nn.Identity()), Ridge(nn.Identity(), mean_squared_error)
    torch.testing.assert_close(labels.adapt(more), labels.adapt(Batch(x, y)), rtol=1e-4, atol=1e-5)
    assert not numbers.adapt(more).allclose(numbers.adapt(Batch(x, y)), atol=1e-3)


@pytest.mark.parametrize(("penalty", "scale"), [(0.0, 1.0), (1.0, 0.0)])
def test_a_penalty_or_scale_of_nothing_is_refused(penalty: float, scale: float) -> None:
    with pytest.raises(ValueError, match=rf"above zero.*found {penalty} and {scale}"):
        Ridge(nn.Identity(), penalty=penalty, scale=scale)


def test_it_takes_any_number_of_classes() -> None:
    learner = Ridge(nn.Identity())
    for ways in (2, 5):
        x = torch.eye(ways, 6)
        predictions = learner.predict(learner.adapt(Batch(x, torch.eye(ways))), x)
        assert predictions.argmax(1).tolist() == list(range(ways))
