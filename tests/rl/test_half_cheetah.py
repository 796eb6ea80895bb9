"""The half-cheetah: Gymnasium's own physics step by step, whatever the batch and the number of threads."""

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

from kshot.rl.environments.half_cheetah import HalfCheetahDir, HalfCheetahVel


def simulated(threads: int = 1, steps: int = 20, frame_skip: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Return states and rewards of six cheetahs of three tasks that all do the same things."""
    env, generator = HalfCheetahVel(frame_skip=frame_skip, threads=threads), torch.Generator().manual_seed(0)
    tasks = env.draw_tasks(0, np.arange(3))
    state, _ = env.reset(tasks, 2, generator)
    states, rewards = [state], []
    for step in range(steps):
        actions = torch.rand(3, 2, 6, generator=torch.Generator().manual_seed(step)) * 2 - 1
        found = env.step(tasks, state, actions, generator)
        state = found.state
        states.append(state)
        rewards.append(found.rewards)
    env.close()
    return torch.stack(states), torch.stack(rewards)


def test_the_number_of_threads_changes_nothing() -> None:
    for one, other in zip(simulated(1), simulated(3), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("frame_skip", [1, 5])
def test_steps_are_those_of_gymnasium(frame_skip: int) -> None:
    states, rewards = simulated(steps=20, frame_skip=frame_skip)
    env = gymnasium.make("HalfCheetah-v5", frame_skip=frame_skip).unwrapped
    env.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    goals = HalfCheetahVel().draw_tasks(0, np.arange(3))["velocity"]
    for task, number in ((0, 0), (2, 1)):
        env.reset(seed=0)
        start = states[0, task, number].numpy()
        env.set_state(start[1:10], start[10:])
        for step in range(20):
            action = (torch.rand(3, 2, 6, generator=torch.Generator().manual_seed(step)) * 2 - 1)[task, number].numpy()
            seen, _, _, _, info = env.step(action)
            ours = states[step + 1, task, number].numpy()
            np.testing.assert_allclose(seen, ours[2:], atol=1e-9)
            expected = -abs(info["x_velocity"] - float(goals[task])) - 0.05 * np.square(action).sum()
            assert float(rewards[step, task, number]) == pytest.approx(expected, abs=1e-5)
    env.close()


def test_a_golden_trajectory() -> None:
    states, rewards = simulated()
    found = [*states[-1, 1, 1, 1:4].tolist(), *rewards[[0, 9, 19], 1, 1].tolist()]
    golden = [0.395106, -0.064631, 0.108397, -1.126271, -0.684599, -1.170876]  # of MuJoCo 3.14
    np.testing.assert_allclose(found, golden, rtol=1e-4)


def test_directions_are_opposite_and_both_are_drawn() -> None:
    env, generator = HalfCheetahDir(), torch.Generator().manual_seed(0)
    assert set(env.draw_tasks(0, np.arange(50))["direction"].tolist()) == {1.0, -1.0}
    tasks = {"direction": torch.tensor([1.0, -1.0])}
    state, _ = env.reset({"direction": torch.ones(1)}, 1, generator)
    found = env.step(tasks, state.expand(2, 1, 19), torch.zeros(2, 1, 6), generator)
    assert found.rewards[0] == -found.rewards[1] != 0
    with pytest.raises(ValueError, match="frame_skip >= 1"):
        HalfCheetahDir(frame_skip=0)
    with pytest.raises(ValueError, match="made of"):
        env.reset({"velocity": torch.ones(1)}, 1, generator)
