"""Gaussian process tasks against textbook formulas and scikit-learn."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from kshot.core import Batch, Episode
from kshot.losses import gaussian_log_likelihood
from kshot.tasks.functions import RBF, GaussianProcesses, Kernel, Matern52, Periodic

KERNELS = [RBF(), Matern52(), Periodic(1.5)]


def covariance(source: GaussianProcesses, x: Tensor, item: int) -> Tensor:
    """Of noisy points, entry by entry."""
    length_scale, amplitude = source.scales(np.array([item]))
    rows = [[source.kernel((one - other)[None, None, None], length_scale)[0, 0, 0] for other in x] for one in x]
    return amplitude[0, 0, 0] ** 2 * torch.tensor(rows) + source.noise**2 * torch.eye(len(x)).double()


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("inputs", [1, 2])
def test_outputs_have_the_covariance_of_the_kernel(kernel: Kernel, inputs: int) -> None:
    source = GaussianProcesses(
        kernel, 4, 3, length_scale=(0.3, 0.9), amplitude=(0.5, 2.0), noise=0.1, inputs=inputs, seed=3
    )
    items = np.arange(3000)
    (x, y), (queries, answers) = source.sample(items)
    x, y = (torch.cat(parts, 1).double() for parts in ((x, queries), (y, answers)))
    length_scale, amplitude = source.scales(items)
    covariances = amplitude**2 * kernel(x[:, :, None] - x[:, None], length_scale) + 0.01 * torch.eye(7).double()
    torch.testing.assert_close(covariances[5], covariance(source, x[5], 5))
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariances), y, upper=False)[..., 0]
    torch.testing.assert_close(white.T @ white / len(items), torch.eye(7).double(), atol=0.1, rtol=0)
    torch.testing.assert_close(white.mean(0), torch.zeros(7).double(), atol=0.1, rtol=0)
    assert 2.7 < white.pow(4).mean() < 3.3  # as of a Gaussian


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_kernels_are_those_of_scikit_learn(kernel: Kernel) -> None:
    theirs = pytest.importorskip("sklearn.gaussian_process.kernels")
    x = torch.randn(9, 1).double()
    same = {RBF: theirs.RBF(0.7), Matern52: theirs.Matern(0.7, nu=2.5), Periodic: theirs.ExpSineSquared(0.7, 1.5)}
    ours = kernel((x[:, None] - x)[None], torch.full((1, 1, 1), 0.7).double())[0]
    torch.testing.assert_close(ours, torch.from_numpy(same[type(kernel)](x.numpy())))


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_exact_is_the_conditional_of_the_joint_gaussian(kernel: Kernel) -> None:
    source = GaussianProcesses(kernel, 5, 4, length_scale=(0.3, 0.9), amplitude=(0.5, 2.0), noise=0.2, inputs=2)
    items = np.array([2, 7])
    tasks = source.sample(items)
    found = source.exact(tasks, items)
    for i, item in enumerate(items):
        joint = covariance(source, torch.cat([tasks.support.x[i], tasks.query.x[i]]).double(), int(item))
        known, across = joint[:5, :5].inverse(), joint[5:, :5]
        mean = across @ known @ tasks.support.y[i].double()
        deviation = (joint[5:, 5:] - across @ known @ across.mT).diagonal().sqrt()
        torch.testing.assert_close(found[i], torch.cat([mean, deviation.log()[:, None]], -1), rtol=1e-7, atol=1e-7)


def test_exact_is_what_scikit_learn_predicts() -> None:
    process = pytest.importorskip("sklearn.gaussian_process")
    theirs = process.kernels.ConstantKernel(4.0) * process.kernels.RBF(0.5) + process.kernels.WhiteKernel(0.01)
    source = GaussianProcesses(RBF(), 8, 6, length_scale=0.5, amplitude=2.0, noise=0.1)
    tasks = source.sample(np.arange(1))
    (x, y), (query, _) = (Batch(*(part[0].double().numpy() for part in batch)) for batch in tasks)
    regressor = process.GaussianProcessRegressor(theirs, alpha=0.0, optimizer=None).fit(x, y[:, 0])
    mean, deviation = map(torch.from_numpy, regressor.predict(query, return_std=True))
    torch.testing.assert_close(source.exact(tasks, np.arange(1))[0], torch.stack([mean, deviation.log()], -1))


def test_by_the_chain_rule_exact_likelihoods_are_that_of_all_points() -> None:
    source = GaussianProcesses(Matern52(), 6, 1, noise=0.1)
    items = np.array([4])
    (x, y), _ = source.sample(items)
    log_density = 0.0
    for n in range(6):
        task = Episode(Batch(x[:, :n], y[:, :n]), Batch(x[:, n : n + 1], y[:, n : n + 1]))
        log_density += gaussian_log_likelihood.metric(source.exact(task, items)[0], task.query.y[0].double()).item()
    process = MultivariateNormal(torch.zeros(6).double(), covariance(source, x[0].double(), 4))
    assert log_density == pytest.approx(process.log_prob(y[0, :, 0].double()).item(), abs=1e-6)


def test_nothing_predicts_better_than_exact() -> None:
    items = np.arange(1000)
    source = GaussianProcesses(shots=5, queries=20, noise=0.1)
    tasks = source.sample(items)
    prediction = source.exact(tasks, items)

    def likelihood(mean: float, log_deviation: float) -> float:
        moved = prediction + torch.tensor([mean, log_deviation]).double()
        return gaussian_log_likelihood.metric(moved.flatten(0, 1), tasks.query.y.flatten(0, 1)).item()

    best = likelihood(0, 0)
    assert all(likelihood(*worse) < best for worse in [(0.03, 0), (-0.03, 0), (0, 0.1), (0, -0.1)])
    other = GaussianProcesses(shots=5, queries=20, noise=0.1, length_scale=0.5).exact(tasks, items)
    assert gaussian_log_likelihood.metric(other.flatten(0, 1), tasks.query.y.flatten(0, 1)).item() < best


def test_before_any_point_exact_is_the_prior() -> None:
    source = GaussianProcesses(shots=0, queries=3, amplitude=(1.0, 3.0), noise=0.5)
    items = np.arange(2)
    mean, log_deviation = source.exact(source.sample(items), items).unbind(-1)
    assert not mean.any()
    torch.testing.assert_close(log_deviation.exp(), (source.scales(items)[1][..., 0] ** 2 + 0.25).sqrt().expand(-1, 3))


def test_a_task_depends_on_its_number_alone_and_more_shots_are_added_behind() -> None:
    source = GaussianProcesses(shots=6, queries=4, inputs=2, seed=5)
    whole, one = source.sample(np.arange(20)), source[13]
    fewer = GaussianProcesses(shots=2, queries=4, inputs=2, seed=5)[13]
    for part, whole_part in zip(one, whole, strict=True):
        torch.testing.assert_close(part, Batch(*(leaf[13] for leaf in whole_part)))
        assert part.y.dtype == torch.float32
    torch.testing.assert_close(fewer, Episode(Batch(*(leaf[:2] for leaf in one.support)), one.query))
    assert not torch.equal(GaussianProcesses(shots=6, queries=4, inputs=2, seed=6)[13].query.x, one.query.x)


def test_ranges_are_drawn_from_evenly_and_numbers_stand() -> None:
    length_scale, amplitude = GaussianProcesses(length_scale=(0.1, 0.6), amplitude=3.0).scales(np.arange(10_000))
    assert 0.1 <= length_scale.min() < 0.101
    assert 0.599 < length_scale.max() <= 0.6
    assert abs(length_scale.mean() - 0.35) < 0.01
    assert (amplitude == 3).all()


def test_many_near_points_with_the_least_noise_have_a_factor() -> None:
    source = GaussianProcesses(shots=150, queries=150, length_scale=2.0, noise=1e-4)
    tasks = source.sample(np.arange(3))
    assert tasks.query.y.isfinite().all()
    assert source.exact(tasks, np.arange(3)).isfinite().all()


def test_the_stamp_says_everything_that_was_chosen() -> None:
    stamp = GaussianProcesses(Periodic(2.0), 3, 4, length_scale=(0.1, 0.6), inputs=2).stamp
    assert stamp["data"] == "Gaussian processes, Periodic(period=2.0)"
    assert stamp["tasks"] == "3-shot, 4 queries, x in [-2, 2]^2"
    assert stamp["length scale"] == "0.1 to 0.6"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shots": -1}, "shots must be at least 0"),
        ({"noise": 0.0}, "noise must be at least"),
        ({"x_range": (2.0, -2.0)}, "x_range must be"),
        ({"length_scale": (0.6, 0.1)}, "length_scale must be above zero"),
        ({"amplitude": 0.0}, "amplitude must be above zero"),
    ],
)
def test_what_makes_no_process_is_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianProcesses(**wrong)
