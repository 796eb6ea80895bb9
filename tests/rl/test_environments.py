"""Environments keep to their equations, task by task, and refuse what is not theirs."""

import numpy as np
import pytest
import torch
from torch import nn

from kshot.rl.collect import collect
from kshot.rl.environments.bandit import Bandit
from kshot.rl.environments.base import Environment, Transition
from kshot.rl.environments.navigation import Navigation2D
from kshot.rl.environments.tabular_mdp import TabularMDP
from kshot.rl.policies import policy_for
from kshot.rl.seeds import generator_of

ENVIRONMENTS = [Navigation2D(horizon=6), Navigation2D(6, tells_goal=True), Bandit(3, 6), TabularMDP(4, 3, 6)]


def name_of(environment: Environment) -> str:
    return "-".join(map(str, environment.stamp.values()))


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=name_of)
def test_a_task_depends_on_seed_and_number_alone(environment: Environment) -> None:
    whole, part = environment.draw_tasks(3, np.arange(8)), environment.draw_tasks(3, np.array([5, 2]))
    other = environment.draw_tasks(4, np.arange(8))
    for key in environment.task_shapes:
        assert torch.equal(part[key], whole[key][[5, 2]])
        assert not torch.equal(whole[key], other[key])


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=name_of)
def test_trajectories_are_the_same_by_seed_and_differ_without(environment: Environment) -> None:
    policy, tasks = policy_for(environment, (8,)), environment.draw_tasks(0, np.arange(3))
    weights = {name: one.expand(3, *one.shape) for name, one in policy.named_parameters()}
    one, same, other = (collect(environment, policy, weights, tasks, 5, generator_of(s, 1)) for s in (0, 0, 1))
    assert one.observations.shape == (3, 6, 5, environment.features)
    assert one.actions.shape == (3, 6, 5, environment.actions)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one.actions, other.actions)


def test_navigation_is_what_the_paper_s_code_does() -> None:
    environment, rng = Navigation2D(), np.random.default_rng(0)
    goals, actions = rng.uniform(-0.5, 0.5, (4, 2)), rng.normal(0, 1.5, (30, 4, 3, 2))
    tasks = {"goal": torch.from_numpy(goals)}
    state, seen = environment.reset(tasks, 3, torch.Generator())
    for step in actions:
        place = state.numpy().copy()
        state, seen, rewards, done = environment.step(tasks, state, torch.from_numpy(step), torch.Generator())
        for i in range(4):
            for j in range(3):
                place[i, j] += np.clip(step[i, j] * 0.1, -0.1, 0.1)
                away = place[i, j] - goals[i]
                assert abs(rewards[i, j].item() + np.sqrt((away**2).sum())) < 1e-12
                assert done[i, j].item() == bool(abs(away[0]) < 0.01 and abs(away[1]) < 0.01)
        assert np.allclose(seen.numpy(), place, atol=1e-12)


def test_a_trajectory_ends_at_the_goal_and_counts_nothing_behind_it() -> None:
    environment = Navigation2D(horizon=5)
    policy = policy_for(environment, ())
    with torch.no_grad():
        nn.init.zeros_(policy.net[0].weight)
        policy.net[0].bias.copy_(torch.tensor([1.0, 0.0]))
        policy.log_std.fill_(-20.0)
    weights = {name: one.expand(1, *one.shape) for name, one in policy.named_parameters()}
    found = collect(environment, policy, weights, {"goal": torch.tensor([[0.3, 0.0]])}, 1, torch.Generator())
    assert found.mask[0, :, 0].tolist() == [1, 1, 1, 0, 0]
    assert found.returns().item() == pytest.approx(-0.3, abs=1e-4)


def test_bandits_pay_with_the_chance_of_the_arm() -> None:
    environment, n = Bandit(2, 1), 20_000
    tasks = {"chances": torch.tensor([[0.3, 0.9], [0.0, 0.5]])}
    state, _ = environment.reset(tasks, n, torch.Generator())
    arms = torch.eye(2)[[1, 0]][:, None].expand(2, n, 2)  # the second arm of the first bandit, the first of the second
    rewards = environment.step(tasks, state, arms, generator_of(0, 0)).rewards
    assert rewards[1].sum() == 0
    assert rewards[0].mean().item() == pytest.approx(0.9, abs=4 * (0.09 / n) ** 0.5)


def test_tabular_processes_move_and_pay_by_their_tables() -> None:
    environment, n = TabularMDP(3, 2), 20_000
    tasks = environment.draw_tasks(0, np.arange(1))
    assert torch.allclose(tasks["transitions"].sum(-1), torch.ones(1, 3, 2))
    state, _ = environment.reset(tasks, n, torch.Generator())
    second = torch.eye(2)[1].expand(1, n, 2)
    after, _, rewards, _ = environment.step(tasks, state, second, generator_of(0, 0))
    assert torch.allclose(after.mean(1)[0], tasks["transitions"][0, 0, 1], atol=4 * (0.25 / n) ** 0.5)
    assert rewards.mean().item() == pytest.approx(tasks["means"][0, 0, 1].item(), abs=4 / n**0.5)
    assert rewards.std().item() == pytest.approx(1, abs=0.03)


def test_flat_dirichlet_draws_have_its_moments() -> None:
    rows = TabularMDP(5, 4).draw_tasks(0, np.arange(500))["transitions"].reshape(-1, 5)
    assert torch.allclose(rows.mean(0), torch.full((5,), 0.2), atol=0.01)
    assert torch.allclose(rows.var(0), torch.full((5,), 0.2 * 0.8 / 6), atol=0.002)


class Broken(Navigation2D):
    """A simulator that fails in one of several ways at its third step, in the second task."""

    def __init__(self, fault: str) -> None:
        super().__init__(horizon=6)
        self.fault, self.calls = fault, 0

    def step(self, tasks, state, actions, generator):  # type: ignore[no-untyped-def]
        self.calls += 1
        if self.calls != 3:
            return super().step(tasks, state, actions, generator)
        if self.fault == "crash":
            raise OSError("the simulator is gone")
        moved = super().step(tasks, state, actions, generator)
        rewards = moved.rewards.clone()
        rewards[1, 0] = torch.nan
        return Transition(moved.state, moved.observations, rewards, moved.done)


@pytest.mark.parametrize(
    ("fault", "error", "told"),
    [
        ("crash", RuntimeError, "Broken failed at step 2: the simulator is gone"),
        ("nan", FloatingPointError, "the reward is not finite at step 2 of task 1, trajectory 0"),
    ],
)
def test_failures_name_task_and_step(fault: str, error: type[Exception], told: str) -> None:
    environment = Broken(fault)
    policy, tasks = policy_for(environment, (4,)), environment.draw_tasks(0, np.arange(2))
    weights = {name: one.expand(2, *one.shape) for name, one in policy.named_parameters()}
    with pytest.raises(error, match=told):
        collect(environment, policy, weights, tasks, 2, torch.Generator())


def test_actions_that_are_not_finite_are_found_in_their_task() -> None:
    environment = Navigation2D(horizon=4)
    policy, tasks = policy_for(environment, (4,)), environment.draw_tasks(0, np.arange(3))
    weights = {name: one.detach().repeat(3, *[1] * one.ndim) for name, one in policy.named_parameters()}
    weights["net.2.bias"][2] = torch.nan
    with pytest.raises(FloatingPointError, match="the action is not finite at step 0 of task 2"):
        collect(environment, policy, weights, tasks, 2, torch.Generator())


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=name_of)
def test_other_environments_tasks_are_refused(environment: Environment) -> None:
    with pytest.raises(ValueError, match="is made of"):
        environment.reset({"speed": torch.ones(2)}, 1, torch.Generator())
    wrong = {name: torch.ones(2, 7) for name in environment.task_shapes}
    with pytest.raises(ValueError, match="must be \\(tasks"):
        environment.reset(wrong, 1, torch.Generator())


def test_a_horizon_is_at_least_one_step() -> None:
    with pytest.raises(ValueError, match="at least 1 step; found 0"):
        Navigation2D(horizon=0)
