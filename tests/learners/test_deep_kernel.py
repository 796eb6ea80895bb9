"""Deep kernels against the textbook formulas, by inverses and determinants in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from kshot.core import Batch, Episode
from kshot.learners.gradient import DeepKernel, Ridge, kernels
from kshot.losses import mean_squared_error
from kshot.nets.mlp import MLP
from kshot.tasks.sinusoid import Sinusoids
from kshot.training import train


def examples(n: int, targets: int = 2) -> Batch:
    return Batch(torch.randn(n, 3).double(), torch.randn(n, targets).double())


def joint_covariance(kernel: kernels.Kernel, x: Tensor, variance: float, noise: float) -> Tensor:
    return variance * kernel(x, x) + noise * torch.eye(len(x)).double()


@pytest.mark.parametrize("kernel", [kernels.linear, kernels.gaussian])
def test_mean_and_deviation_are_those_of_the_joint_gaussian(kernel: kernels.Kernel) -> None:
    support, query = examples(5), examples(4)
    learner = DeepKernel(nn.Identity(), kernel, variance=2.0, noise=0.3).double()
    joint = joint_covariance(kernel, torch.cat([support.x, query.x]), 2.0, 0.3)
    known, across, unknown = joint[:5, :5].inverse(), joint[5:, :5], joint[5:, 5:]
    state = learner.adapt(support)
    torch.testing.assert_close(learner.predict(state, query.x), across @ known @ support.y, rtol=1e-6, atol=1e-6)
    expected = (unknown - across @ known @ across.mT).diagonal().sqrt()
    torch.testing.assert_close(learner.deviation(state, query.x), expected, rtol=1e-6, atol=1e-6)


def test_the_loss_is_the_negative_log_density_of_all_examples() -> None:
    support, query = examples(3), examples(4)
    learner = DeepKernel(nn.Identity(), variance=2.0, noise=0.3).double()
    x, y = torch.cat([support.x, query.x]), torch.cat([support.y, query.y])
    process = MultivariateNormal(torch.zeros(7).double(), joint_covariance(kernels.gaussian, x, 2.0, 0.3))
    expected = -process.log_prob(y.mT).sum() / y.numel()
    torch.testing.assert_close(learner.task_loss(Episode(support, query)), expected, rtol=1e-6, atol=1e-6)


def test_a_linear_kernel_is_ridge_regression() -> None:
    """The penalty is the noise over the variance of a weight."""
    support, query = examples(5), examples(4)
    ridge = Ridge(nn.Identity(), mean_squared_error, penalty=0.6).double()

    class WithOnes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, torch.ones_like(x[:, :1])], 1)

    process = DeepKernel(WithOnes(), kernels.linear, variance=2.0 * 4, noise=0.6 * 2.0).double()  # of 4 features
    z = process.encode(support.x)
    found = process.predict(process.adapt(Batch(z, support.y)), process.encode(query.x))
    torch.testing.assert_close(found, ridge.predict(ridge.adapt(support), query.x), rtol=1e-6, atol=1e-6)


def test_it_knows_where_it_knows_nothing() -> None:
    support = examples(5)
    learner = DeepKernel(nn.Identity(), variance=2.0, noise=0.01).double()
    near, far = (learner.deviation(learner.adapt(support), x) for x in (support.x, support.x + 100))
    torch.testing.assert_close(far, torch.full_like(far, 2.01).sqrt())
    assert (near.square() < 0.02).all()  # an observation leaves at most its own noise, and the next one adds as much


def test_once_trained_its_errors_are_as_large_as_it_says() -> None:
    torch.manual_seed(0)
    learner = DeepKernel(MLP(1, 40, 40, 40))
    train(learner, Sinusoids(5, 10), steps=400, tasks_per_step=16)
    tasks = learner.encode_tasks(next(iter(Sinusoids(5, 20, seed=1).batches(200))))
    with torch.no_grad():
        deviation = learner.map_encoded(
            lambda task: learner.deviation(learner.adapt(task.support), task.query.x), tasks
        )
        mean = learner.map_encoded(lambda task: learner.predict(learner.adapt(task.support), task.query.x), tasks)
    standardised = (mean - tasks.query.y)[..., 0] / deviation
    assert 0.7 < standardised.square().mean().sqrt() < 1.3


@pytest.mark.parametrize("wrong", [{"variance": 0.0}, {"noise": 0.0}, {"noise": 1e-4}])
def test_too_little_variance_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a variance above zero and a noise above"):
        DeepKernel(nn.Identity(), **wrong)


def test_a_covariance_without_a_cholesky_factor_is_told() -> None:
    learner = DeepKernel(nn.Identity(), kernels.linear, variance=1e6, noise=1.1e-4)
    x, y = torch.randn(60, 3), torch.randn(60, 1)
    with pytest.raises(ValueError, match="of 60 examples has no Cholesky factor"):
        learner.adapt(Batch(x, y))
