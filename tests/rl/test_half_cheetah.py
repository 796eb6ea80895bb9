"""The half-cheetah: Gymnasium's own physics step by step, whatever the batch and the number of threads."""

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

from kshot.rl.environments.half_cheetah import HalfCheetahDir, HalfCheetahVel, Preset
from kshot.rl.environments.planar import CentreOfMass


def simulated(
    preset: Preset = "gym", threads: int = 1, steps: int = 20, frame_skip: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return states and rewards of six cheetahs of three tasks that all do the same things."""
    env, generator = HalfCheetahVel(preset, frame_skip=frame_skip, threads=threads), torch.Generator().manual_seed(0)
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
    for one, other in zip(simulated(threads=1), simulated(threads=3), strict=True):
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


def test_steps_of_finn2017_are_those_of_its_code() -> None:
    env, generator = HalfCheetahVel("finn2017"), torch.Generator().manual_seed(0)
    tasks = env.draw_tasks(0, np.arange(1))
    state, seen = env.reset(tasks, 1, generator)
    model = gymnasium.make("HalfCheetah-v5").unwrapped.model
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = state[0, 0, 1:10].numpy(), state[0, 0, 10:].numpy()
    for _ in range(60):
        action = torch.rand(1, 1, 6, generator=generator) * 2.4 - 1.2
        state, seen, rewards, _ = env.step(tasks, state, action, generator)
        data.ctrl[:] = action[0, 0]
        mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        expected = np.concatenate([data.qpos[1:], data.qvel, data.subtree_com[1]])
        np.testing.assert_allclose(seen[0, 0].numpy(), expected, atol=1e-5)
        cost = 0.05 * np.square(np.clip(action.numpy(), -1, 1)).sum()
        reward = -abs(data.subtree_linvel[1, 0] - float(tasks["velocity"][0])) - cost
        assert float(rewards) == pytest.approx(reward, abs=1e-5)


def test_the_centre_of_mass_is_that_of_mujoco() -> None:
    model = gymnasium.make("HalfCheetah-v5").unwrapped.model
    data, random = mujoco.MjData(model), np.random.default_rng(0)
    centre_of_mass = CentreOfMass(model)
    for _ in range(5):
        data.qpos[:], data.qvel[:] = random.normal(size=9), random.normal(size=9)
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        centre, velocity = centre_of_mass(torch.from_numpy(data.qpos.copy()), torch.from_numpy(data.qvel.copy()))
        np.testing.assert_allclose(centre.numpy(), data.subtree_com[1], atol=1e-12)
        assert float(velocity) == pytest.approx(data.subtree_linvel[1, 0], abs=1e-12)


GOLDEN: dict[Preset, list[float]] = {  # of MuJoCo 3.17
    "gym": [0.395106, -0.064631, 0.108397, -1.126271, -0.684599, -1.170876],
    "finn2017": [0.027015, -0.122099, 0.078388, -1.203722, -1.177732, -1.026318],
}


@pytest.mark.parametrize("preset", GOLDEN)
def test_a_golden_trajectory(preset: Preset) -> None:
    states, rewards = simulated(preset)
    found = [*states[-1, 1, 1, 1:4].tolist(), *rewards[[0, 9, 19], 1, 1].tolist()]
    np.testing.assert_allclose(found, GOLDEN[preset], rtol=1e-4)


def test_an_oracle_sees_the_goal() -> None:
    env, generator = HalfCheetahVel("finn2017", tells_goal=True), torch.Generator().manual_seed(0)
    tasks = env.draw_tasks(0, np.arange(3))
    state, seen = env.reset(tasks, 2, generator)
    assert seen.shape == (3, 2, env.features)
    after = env.step(tasks, state, torch.zeros(3, 2, 6), generator).observations
    for one in (seen, after):
        torch.testing.assert_close(one[..., -1], tasks["velocity"][:, None].expand(3, 2))


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
