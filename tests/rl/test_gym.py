"""Environments as Gymnasium's: its own checks, and the same steps alone, together and in kshot's batch."""

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from kshot.rl.environments import gym
from kshot.rl.environments.bandit import Bandit
from kshot.rl.environments.base import Environment
from kshot.rl.environments.navigation import Navigation2D
from kshot.rl.environments.tabular_mdp import TabularMDP

RUNNERS = ("HalfCheetahDir", "HalfCheetahVel", "HalfCheetahSlope", "AntDir", "AntVel")
KINDS = {"Navigation2D": Navigation2D, "Bandit": Bandit, "TabularMDP": TabularMDP}


@pytest.mark.parametrize("name", KINDS)
def test_passes_the_checks_of_gymnasium(name: str) -> None:
    check_env(gymnasium.make(f"kshot/{name}-v0").unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", RUNNERS)
@pytest.mark.filterwarnings(
    "ignore:.*Box observation space (minimum|maximum) value is:UserWarning"
)  # as in Gymnasium's
def test_runners_pass_the_checks_of_gymnasium(name: str) -> None:
    env: Any = gymnasium.make(f"kshot/{name}-v0", horizon=3, preset="finn2017").unwrapped
    check_env(env, skip_render_check=True)
    assert env.environment.preset == "finn2017"


@pytest.mark.parametrize("name", RUNNERS)
def test_runners_are_the_same_alone_and_together(name: str) -> None:
    together = gymnasium.make_vec(f"kshot/{name}-v0", num_envs=3, horizon=4)
    tasks = together.unwrapped.environment.draw_tasks(0, np.arange(3))
    observed, _ = together.reset(seed=3, options={"tasks": tasks})
    assert together.observation_space.contains(observed)
    assert together.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    alone: Any = gymnasium.make(f"kshot/{name}-v0", horizon=4).unwrapped
    alone.reset(options={"task": {key: leaf[1].numpy() for key, leaf in tasks.items()}})
    alone._state = together.unwrapped._state[1:2].clone()
    for step in range(4):
        actions = np.random.default_rng(step).uniform(-1, 1, together.action_space.shape).astype(np.float32)
        observed, rewards, ended, cut, _ = together.step(actions)
        seen, reward, over, last, _ = alone.step(actions[1])
        np.testing.assert_array_equal(seen, observed[1])
        assert (reward, over, last) == (rewards[1], ended[1], cut[1])
        assert cut.all() == (step == 3)
    again, _ = together.reset(options={"reset_mask": np.array([True, False, False])})
    np.testing.assert_array_equal(again[1:], observed[1:])
    assert not np.array_equal(again[0], observed[0])
    together.close()
    alone.close()


def test_mujoco_is_imported_late_and_need_not_be_there() -> None:
    code = """
import importlib, sys
import gymnasium
import kshot.rl.environments.gym as module
print("mujoco" in sys.modules, "kshot/HalfCheetahDir-v0" in gymnasium.registry)
sys.modules["mujoco"] = None
gymnasium.registry.clear()
importlib.reload(module)
print(*gymnasium.registry)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["False True", " ".join(f"kshot/{name}-v0" for name in KINDS)]


def test_alone_together_and_in_a_batch_are_the_same() -> None:
    batch: Environment = Navigation2D(horizon=7)
    tasks, generator = batch.draw_tasks(3, np.arange(4)), torch.Generator()
    state, seen = batch.reset(tasks, 1, generator)
    together = gymnasium.make_vec("kshot/Navigation2D-v0", num_envs=4, horizon=7)
    alone: Any = [gymnasium.make("kshot/Navigation2D-v0", horizon=7) for _ in range(4)]
    observed, _ = together.reset(options={"tasks": tasks})
    for number, env in enumerate(alone):
        told, _ = env.reset(options={"task": {"goal": tasks["goal"][number].numpy()}})
        np.testing.assert_array_equal(told, observed[number])
    np.testing.assert_array_equal(seen[:, 0].numpy(), observed)
    for step in range(7):
        actions = np.random.default_rng(step).uniform(-1, 1, (4, 2)).astype(np.float32)
        found = batch.step(tasks, state, torch.from_numpy(actions)[:, None], generator)
        state = found.state
        observed, rewards, ended, cut, _ = together.step(actions)
        np.testing.assert_array_equal(found.observations[:, 0].numpy(), observed)
        assert cut.all() == (step == 6)
        for number, env in enumerate(alone):
            one, reward, over, last, _ = env.step(actions[number])
            np.testing.assert_allclose(one, observed[number], atol=1e-7)
            assert reward == pytest.approx(float(rewards[number]), abs=1e-6)
            assert (over, last) == (bool(ended[number]), bool(cut[number]))


@pytest.mark.parametrize("name", KINDS)
def test_a_vector_of_tasks_resets_where_it_is_told(name: str) -> None:
    env = gymnasium.make_vec(f"kshot/{name}-v0", num_envs=3)
    first, _ = env.reset(seed=5)
    for _ in range(2):
        after = env.step(env.action_space.sample())[0]
    mask = np.array([True, False, True])
    again, _ = env.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal(again[1], after[1])
    if name == "Navigation2D":
        assert (again[[0, 2]] == 0).all()
    for _ in range(env.unwrapped.environment.horizon - 2):
        cut = env.step(env.action_space.sample())[3]
    assert cut.tolist() == [False, True, False]
    np.testing.assert_array_equal(env.reset(seed=5)[0], first)


def test_tasks_are_drawn_kept_and_checked() -> None:
    env: Any = gymnasium.make("kshot/Bandit-v0", arms=3).unwrapped
    env.reset(seed=1)
    drawn = env.sample_tasks(2)
    assert [task["chances"].shape for task in drawn] == [(3,), (3,)]
    assert env.get_task() is None
    env.set_task(drawn[0])
    np.testing.assert_array_equal(env.get_task()["chances"], drawn[0]["chances"])
    with pytest.raises(ValueError, match=r"made of \['chances'\]; found \['goal'\]"):
        env.set_task({"goal": np.zeros(2)})
    assert isinstance(env, gym.TaskEnv)


def test_a_batch_takes_tasks_of_numpy_one_for_each_copy() -> None:
    env = gymnasium.make_vec("kshot/Navigation2D-v0", num_envs=3)
    env.reset(seed=0, options={"tasks": {"goal": np.ones((3, 2))}})
    _, rewards, *_ = env.step(np.zeros((3, 2), np.float32))
    np.testing.assert_allclose(rewards, -np.sqrt(2), rtol=1e-6)
    with pytest.raises(ValueError, match="a task for each of 3 copies; found 2"):
        env.reset(options={"tasks": {"goal": np.ones((2, 2))}})
