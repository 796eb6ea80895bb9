"""Other people's environments: the same steps as ours, training through them, and errors that say what failed where."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn

from kshot.rl.collect import collect
from kshot.rl.environments.gym import TaskEnv, TaskVectorEnv
from kshot.rl.environments.navigation import Navigation2D
from kshot.rl.environments.simulators import Copies, Simulators
from kshot.rl.environments.vector import VectorEnvironment
from kshot.rl.environments.vectorized import Vectorized
from kshot.rl.gradient_learner import Setting
from kshot.rl.maml_trpo import MAMLTRPO
from kshot.rl.policies import policy_for
from kshot.rl.seeds import generator_of
from kshot.rl.training import train_policy
from kshot.tasks.keys import uniform

NATIVE = Navigation2D(horizon=8)


def together(mode: AutoresetMode | None) -> Vectorized:
    def set_tasks(env: Any, tasks: dict[str, Any]) -> dict[str, Any] | None:
        if mode is None:
            return {"tasks": {name: torch.from_numpy(leaf) for name, leaf in tasks.items()}}
        for one, goal in zip(env.envs, tasks["goal"], strict=True):
            one.set_task({"goal": goal})
        return None

    if mode is None:
        return Vectorized(lambda n: TaskVectorEnv(NATIVE, n), set_tasks)
    return Vectorized(lambda n: SyncVectorEnv([lambda: TaskEnv(NATIVE)] * n, autoreset_mode=mode), set_tasks)


SIMULATORS: dict[str, Callable[[], Simulators]] = {
    "copies": lambda: Copies(lambda: TaskEnv(NATIVE)),
    "batch": lambda: together(None),
    "sync": lambda: together(AutoresetMode.DISABLED),
    "sync that resets itself": lambda: together(AutoresetMode.NEXT_STEP),
}


def earth(seed: int, items: Any) -> dict[str, Any]:
    return {"gravity": np.full(len(items), 9.8)}


def pendulum(make: Callable[[], Any] = lambda: gymnasium.make("Pendulum-v1")) -> VectorEnvironment:
    def set_gravity(env: Any, task: dict[str, Any]) -> None:
        env.unwrapped.g = task["g"]

    return VectorEnvironment(
        Copies(make, set_gravity), lambda seed, items: {"g": 5 + 10 * uniform(seed, 0, items, 1)[:, 0]}, 5
    )


@pytest.mark.parametrize("name", SIMULATORS)
def test_navigation_is_the_same_step_by_step(name: str) -> None:
    wrapped = VectorEnvironment(SIMULATORS[name](), NATIVE.draw_tasks, horizon=8)
    assert (wrapped.features, wrapped.actions, wrapped.discrete) == (2, 2, False)
    tasks, generator = wrapped.draw_tasks(3, np.arange(4)), torch.Generator()
    tasks["goal"][1] = torch.tensor([0.2, 0.1])  # near, so that a trajectory ends before the horizon
    state, seen = NATIVE.reset(tasks, 3, generator)
    at, found = wrapped.reset(tasks, 3, generator)
    assert torch.equal(seen, found)
    running = torch.ones(4, 3, dtype=torch.bool)
    for step in range(8):
        actions = 2 * torch.rand(4, 3, 2, generator=generator_of(0, step)) - 1
        actions[1, 0] = torch.tensor([1.0, 0.5]) if step < 2 else torch.tensor([0.5, 0.5])
        state, seen, rewards, done = NATIVE.step(tasks, state, actions, generator)
        at, observed, paid, over = wrapped.step(tasks, at, actions, generator)
        torch.testing.assert_close(observed[running], seen[running], atol=1e-6, rtol=0)
        torch.testing.assert_close(paid, rewards.where(running, 0), atol=1e-6, rtol=0)
        if step < 7:  # at the horizon all of them end
            assert torch.equal(over, done & running)
        running &= ~done
    assert not running[1, 0]
    assert running.sum() == 11
    wrapped.close()


def test_maml_trains_through_the_wrapper() -> None:
    environment = VectorEnvironment(Copies(lambda: TaskEnv(NATIVE)), NATIVE.draw_tasks, horizon=8)
    learner = MAMLTRPO(policy_for(environment, (8,), nn.Tanh))
    before = [one.detach().clone() for one in learner.policy.parameters()]
    train_policy(learner, environment, Setting(3, 4, test_rates=(0.1,)), steps=1, validation_tasks=2)
    after = list(learner.policy.parameters())
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(one.isfinite().all() for one in after)


def test_gravity_of_a_pendulum_is_a_task() -> None:
    environment = pendulum()
    learner = MAMLTRPO(policy_for(environment, (8,), nn.Tanh))
    trained = train_policy(learner, environment, Setting(3, 2, test_rates=(0.1,)), steps=1, validation_tasks=2)
    assert trained.steps == 1
    tasks = environment.draw_tasks(0, np.arange(2))
    state, seen = environment.reset(tasks, 2, torch.Generator().manual_seed(0))
    actions = torch.full((2, 2, 1), 0.25)
    _, following, _, _ = environment.step(tasks, state, actions, torch.Generator())
    for task in range(2):
        sine, speed = seen[task, :, 1], seen[task, :, 2]
        expected = speed + (1.5 * tasks["g"][task] * sine + 3 * 0.25 * 2) * 0.05  # torques in [-2, 2]
        torch.testing.assert_close(following[task, :, 2], expected, atol=1e-4, rtol=0)
    environment.close()


def test_trajectories_are_the_same_by_seed_whatever_ran_before() -> None:
    environment, other = pendulum(), pendulum()
    policy, tasks = policy_for(environment, (8,)), environment.draw_tasks(0, np.arange(3))
    weights = {name: one.expand(3, *one.shape) for name, one in policy.named_parameters()}
    one, different = (collect(environment, policy, weights, tasks, 2, generator_of(seed, 1)) for seed in (0, 1))
    same = collect(other, policy, weights, tasks, 2, generator_of(0, 1))
    again = collect(environment, policy, weights, tasks, 2, generator_of(0, 1))
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(one, same, again, strict=True))
    assert not torch.equal(one.observations[:, 0], different.observations[:, 0])
    assert not torch.equal(one.observations[0, 0, 0], one.observations[0, 0, 1])


def test_choices_are_one_hot_and_what_ends_waits() -> None:
    def set_gravity(env: Any, task: dict[str, Any]) -> None:
        env.unwrapped.gravity = task["gravity"]

    environment = VectorEnvironment(
        Copies(lambda: gymnasium.make("CartPole-v1", max_episode_steps=11), set_gravity), earth, horizon=13
    )
    assert (environment.discrete, environment.actions) == (True, 2)
    tasks, generator = environment.draw_tasks(0, np.arange(2)), torch.Generator()
    state, _ = environment.reset(tasks, 1, generator)
    ends, paid, last = [], torch.zeros(2, 1), torch.zeros(2, 1, 4)
    for step in range(13):
        actions = torch.eye(2)[torch.tensor([[0], [step % 2]])]  # falls to the right; balances
        state, seen, rewards, done = environment.step(tasks, state, actions, generator)
        ends += [(step, task) for task in done[:, 0].nonzero().flatten().tolist()]
        paid += rewards
        assert step < 11 or torch.equal(seen, last)
        last = seen
    assert len(ends) == 2
    assert (10, 1) in ends  # truncated by its own limit
    assert ends[0][1] == 0
    assert ends[0][0] < 10
    assert paid[:, 0].tolist() == [ends[0][0] + 1, 11]
    environment.close()


def test_copies_are_made_when_needed_and_used_again() -> None:
    made: list[Any] = []

    def make() -> Any:
        made.append(gymnasium.make("Pendulum-v1"))
        return made[-1]

    environment, generator = pendulum(make=make), torch.Generator()
    counts = [len(made)]
    for tasks, n in ((2, 2), (3, 2), (1, 4)):
        environment.reset(environment.draw_tasks(0, np.arange(tasks)), n, generator)
        counts.append(len(made))
    environment.close()
    environment.reset(environment.draw_tasks(0, np.arange(1)), 1, generator)
    assert [*counts, len(made)] == [1, 4, 6, 6, 7]


def test_an_old_state_or_other_tasks_are_refused() -> None:
    environment, generator = pendulum(), torch.Generator()
    tasks, actions = environment.draw_tasks(0, np.arange(2)), torch.zeros(2, 3, 1)
    first, _ = environment.reset(tasks, 3, generator)
    second = environment.step(tasks, first, actions, generator).state
    with pytest.raises(ValueError, match=r"is of step 0 of episode 1, but .* Pendulum-v1 stand at step 1 of episode 1"):
        environment.step(tasks, first, actions, generator)
    with pytest.raises(ValueError, match=r"not the tasks that reset has set"):
        environment.step(environment.draw_tasks(1, np.arange(2)), second, actions, generator)
    environment.reset(tasks, 3, generator)
    with pytest.raises(ValueError, match=r"is of step 1 of episode 1, but .* stand at step 0 of episode 2"):
        environment.step(tasks, second, actions, generator)
    environment.close()
    with pytest.raises(ValueError, match=r"call reset first"):
        environment.step(tasks, second, actions, generator)
