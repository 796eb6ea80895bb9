"""MAML with trust regions: gradients and Fisher products against plain autograd, and steps against their own model."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import hessian, vmap

from kshot.batching import unstack
from kshot.finite_differences import finite_difference_error
from kshot.learners.gradient.inner_loop import InnerLoop
from kshot.rl.adaptation import PolicyGradientSteps
from kshot.rl.advantages import to_samples
from kshot.rl.collect import collect
from kshot.rl.environments.bandit import Bandit
from kshot.rl.environments.base import Environment
from kshot.rl.environments.navigation import Navigation2D
from kshot.rl.losses import divergence, reinforce
from kshot.rl.maml_trpo import MAMLTRPO
from kshot.rl.policies import policy_for
from kshot.rl.seeds import generator_of
from kshot.rl.trajectories import Samples
from kshot.rl.trpo import Judged, conjugate_gradients, natural_step, search
from kshot.weights import Weights

CASES = [(Navigation2D(horizon=5), 1), (Navigation2D(horizon=5), 2), (Bandit(3, 4), 1), (Navigation2D(horizon=5), 0)]
IDS = ["navigation, 1 step", "navigation, 2 steps", "bandit", "no steps"]
Collected = tuple[list[Samples], Samples]


def collected(learner: MAMLTRPO, environment: Environment, steps: int, tasks: int = 3, n: int = 4) -> Collected:
    drawn = {name: one.double() for name, one in environment.draw_tasks(0, np.arange(tasks)).items()}
    weights, generator, path = learner.inner.start(tasks), generator_of(0, 0), []
    for step in range(steps + 1):
        path.append(to_samples(collect(environment, learner.policy, weights, drawn, n, generator)))
        if step < steps:
            weights = learner.inner(weights, path[-1])
    return path[:-1], path[-1]


def small(environment: Environment, lr: float = 0.3, **options: object) -> MAMLTRPO:
    torch.manual_seed(0)
    return MAMLTRPO(policy_for(environment, (4,), nn.Tanh).double(), lr, **options)  # type: ignore[arg-type]


def adapted(learner: MAMLTRPO, weights: Weights, path: list[Samples]) -> Weights:
    """Adapt to one task by plain autograd, so that it can be differentiated in any way."""
    for samples in path:
        loss = reinforce(learner.policy, weights, samples)
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        weights = {
            name: weight - learner.inner.lr * gradient
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        }
    return weights


def meta_loss(learner: MAMLTRPO, path: list[Samples], after: Samples) -> Tensor:
    tasks = zip(*(unstack(one) for one in (*path, after)), strict=True)
    start = dict(learner.policy.named_parameters())
    losses = [reinforce(learner.policy, adapted(learner, start, list(one[:-1])), one[-1]) for one in tasks]
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("environment", "steps"), CASES, ids=IDS)
def test_the_meta_gradient_is_that_of_autograd_and_of_finite_differences(environment: Environment, steps: int) -> None:
    learner = small(environment)
    path, after = collected(learner, environment, steps)
    gradient = learner.slope(path, after).gradient
    parameters = dict(learner.policy.named_parameters())
    expected = torch.autograd.grad(meta_loss(learner, path, after), list(parameters.values()))
    assert torch.allclose(gradient, torch.cat([one.flatten() for one in expected]), rtol=1e-9, atol=1e-12)
    parts = gradient.split([one.numel() for one in parameters.values()])
    named = {name: part.view_as(one) for (name, one), part in zip(parameters.items(), parts, strict=True)}
    data = {name: one.data for name, one in parameters.items()}

    @torch.enable_grad()
    def loss() -> Tensor:
        return meta_loss(learner, path, after).detach()

    assert finite_difference_error(loss, data, named)[0] < 1e-5


def test_first_order_leaves_the_curvature_out() -> None:
    environment = Navigation2D(horizon=5)
    exact, first = small(environment), small(environment, first_order=True)
    path, after = collected(exact, environment, 1)
    weights = exact.inner(exact.inner.start(3), path[0])
    plain = vmap(torch.func.grad(lambda w, s: reinforce(exact.policy, w, s)))(weights, after)
    expected = torch.cat([one.mean(0).flatten() for one in plain.values()])
    assert torch.allclose(first.slope(path, after).gradient, expected)
    assert not torch.allclose(exact.slope(path, after).gradient, expected, rtol=0.01)


@pytest.mark.parametrize(("environment", "steps"), CASES, ids=IDS)
def test_the_fisher_product_is_the_hessian_of_the_divergence(environment: Environment, steps: int) -> None:
    learner = small(environment, damping=0.0)
    path, after = collected(learner, environment, steps)
    slope = learner.slope(path, after)
    tasks = [list(one) for one in zip(*(unstack(one) for one in (*path, after)), strict=True)]
    start = torch.cat([one.detach().flatten() for one in learner.policy.parameters()])

    def adapt(vector: Tensor, one: list[Samples]) -> Weights:
        weights: Weights = slope.unflat(vector)
        for samples in one[:-1]:
            gradients = torch.func.grad(lambda w, s=samples: reinforce(learner.policy, w, s))(weights)
            weights = {name: weights[name] - learner.inner.lr * gradients[name] for name in weights}
        return weights

    old = [{name: one.detach() for name, one in adapt(start, task).items()} for task in tasks]

    def moved(vector: Tensor) -> Tensor:
        parts = [
            divergence(learner.policy, before, adapt(vector, task), task[-1])
            for before, task in zip(old, tasks, strict=True)
        ]
        return torch.stack(parts).mean()

    expected = hessian(moved)(start)
    products = torch.stack([slope.fisher(row) for row in torch.eye(len(start), dtype=torch.float64)])
    assert torch.allclose(products, expected, rtol=1e-8, atol=1e-10)


def test_steps_are_those_of_the_supervised_inner_loop_task_by_task() -> None:
    environment = Navigation2D(horizon=5)
    learner = small(environment)
    (samples,), _ = collected(learner, environment, 1)
    weights = learner.inner(learner.inner.start(3), samples)
    start = {name: one.detach() for name, one in learner.policy.named_parameters()}
    for number, one in enumerate(unstack(samples)):
        sizes = [dict.fromkeys(start, torch.tensor(learner.inner.lr, dtype=torch.float64))]
        expected = InnerLoop(mode="reverse")(lambda w, s: reinforce(learner.policy, w, s), start, one, sizes)
        other = learner.inner.differentiated(start, [one]).weights
        for name in start:
            assert torch.allclose(weights[name][number], expected[name], rtol=1e-10, atol=1e-12)
            assert torch.allclose(other[name], expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("first_order", [False, True])
def test_the_predicted_divergence_is_the_actual_one_within_a_fifth(first_order: bool) -> None:
    environment = Navigation2D(horizon=20)
    torch.manual_seed(0)
    # A small radius, where the quadratic model holds: at 0.01 its third order is another 60 % here, before training.
    learner = MAMLTRPO(policy_for(environment, (16, 16), nn.Tanh).double(), 0.1, radius=1e-4, first_order=first_order)
    path, after = collected(learner, environment, 1, tasks=8, n=20)
    update = learner.update(path, after)
    assert update.step.scale > 0
    error = abs(update.step.judged.divergence / update.predicted - 1)
    # First order misjudges how far the adapted policies move: the test would notice a curvature that is left out.
    assert error > 0.2 if first_order else error < 0.2


def test_an_update_lowers_the_loss_within_the_radius_and_only_then_moves() -> None:
    environment = Navigation2D(horizon=5)
    learner = small(environment, radius=0.01)
    path, after = collected(learner, environment, 1)
    before = [one.detach().clone() for one in learner.policy.parameters()]
    update = learner.update(path, after)
    assert update.step.judged.divergence <= 0.01
    assert not all(torch.equal(a, b) for a, b in zip(before, learner.policy.parameters(), strict=True))
    still = small(environment)
    nothing = after._replace(advantages=torch.zeros_like(after.advantages))
    update = still.update(path, nothing)
    assert update.step.scale == 0
    assert all(torch.equal(a, b) for a, b in zip(before, still.policy.parameters(), strict=True))


def test_updates_are_the_same_by_seed_and_for_any_number_of_threads() -> None:
    def weights(threads: int) -> Tensor:
        environment = Navigation2D(horizon=5)
        learner = small(environment, threads=threads)
        learner.update(*collected(learner, environment, 1))
        return torch.cat([one.detach().flatten() for one in learner.policy.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert torch.equal(weights(1), weights(2))


def test_the_fisher_information_of_some_tasks_is_theirs_alone() -> None:
    environment = Navigation2D(horizon=5)
    few, every = small(environment, fisher_tasks=2), small(environment)
    path, after = collected(every, environment, 1)
    slope, v = few.slope(path, after), every.slope(path, after).gradient
    assert torch.equal(slope.gradient, v)
    first = [Samples(*(leaf[:2] for leaf in samples)) for samples in (*path, after)]
    expected = every.slope(first[:-1], first[-1]).fisher(v)
    assert torch.allclose(slope.fisher(v), expected, rtol=1e-12)
    assert not torch.allclose(slope.fisher(v), every.slope(path, after).fisher(v))


def test_conjugate_gradients_solve_what_a_dense_solver_solves() -> None:
    factor = torch.randn(9, 9, dtype=torch.float64)
    matrix, b = factor @ factor.mT + torch.eye(9, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    x, residual = conjugate_gradients(lambda v: matrix @ v, b, steps=30, tolerance=1e-24)
    assert torch.allclose(x, torch.linalg.solve(matrix, b))
    early, residual = conjugate_gradients(lambda v: matrix @ v, b, steps=3)
    assert torch.allclose(residual, b - matrix @ early)
    step = natural_step(b, lambda v: matrix @ v, radius=0.02, steps=3)
    assert (0.5 * step @ matrix @ step).item() == pytest.approx(0.02)
    assert step @ b < 0


@pytest.mark.parametrize(
    ("judge", "scale", "tried"),
    [
        (lambda scale: Judged(-scale, 0.01 * scale**2), 1.0, 1),
        (lambda scale: Judged(-scale, 0.02 * scale**2), 0.64, 3),
        (lambda scale: Judged(scale, 0.0), 0.0, 15),
        (lambda scale: Judged(scale * float("nan"), 0.0), 0.0, 15),
    ],
)
def test_the_line_search_takes_the_longest_good_step(
    judge: Callable[[float], Judged], scale: float, tried: int
) -> None:
    step = search(judge, Judged(0.0, 0.0), radius=0.01)
    assert (step.scale, step.tried) == (pytest.approx(scale), tried)
    assert scale or step.judged == Judged(0.0, 0.0)


def test_what_is_not_finite_is_refused_and_moves_nothing() -> None:
    environment = Navigation2D(horizon=5)
    learner = small(environment)
    path, after = collected(learner, environment, 1)
    before = [one.detach().clone() for one in learner.policy.parameters()]
    with pytest.raises(FloatingPointError, match="meta-gradient is not finite"):
        learner.update(path, after._replace(advantages=after.advantages * torch.nan))
    assert all(torch.equal(a, b) for a, b in zip(before, learner.policy.parameters(), strict=True))
    with pytest.raises(FloatingPointError, match="must be above zero"):
        natural_step(torch.ones(2), lambda v: -v, 0.01, 1)


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"radius": 0.0}, {"cg_steps": 0}, {"damping": -1.0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected lr >= 0, radius > 0"):
        MAMLTRPO(policy_for(Navigation2D()), **wrong)  # type: ignore[arg-type]


def test_start_shares_weights_among_tasks() -> None:
    policy = policy_for(Navigation2D(), (4,))
    start = PolicyGradientSteps(policy, 0.1).start(5)
    for name, one in policy.named_parameters():
        assert start[name].shape == (5, *one.shape)
        assert torch.equal(start[name][4], one)


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"fisher_tasks": 0}])
def test_counts_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="fisher_tasks >= 1 and threads >= 1"):
        MAMLTRPO(policy_for(Navigation2D()), **wrong)  # type: ignore[arg-type]
