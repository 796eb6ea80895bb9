"""The ant: Gymnasium's own steps, forces of contacts included, and those of the code of Finn et al. 2017."""

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

from kshot.rl.collect import collect
from kshot.rl.environments.ant import AntDir, AntVel, Preset
from kshot.rl.policies import GaussianPolicy


def actions(step: int, size: float = 1.0) -> torch.Tensor:
    """Return what the ants of two tasks, three each, do at a step."""
    return size * (torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(step)) * 2 - 1)


def simulated(
    preset: Preset = "gym", threads: int = 1, steps: int = 20, frame_skip: int | None = None, size: float = 1.0
) -> list[torch.Tensor]:
    """Return states, observations, rewards and ends of ants that are to run forward and backward."""
    env, generator = AntDir(preset, threads=threads, frame_skip=frame_skip), torch.Generator().manual_seed(0)
    tasks = {"direction": torch.tensor([1.0, -1.0])}
    state, seen = env.reset(tasks, 3, generator)
    rows: list[tuple[torch.Tensor, ...]] = [(state, seen, torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool))]
    for step in range(steps):
        rows.append(tuple(env.step(tasks, rows[-1][0], actions(step, size), generator)))
    env.close()
    return [torch.stack(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("preset", ["gym", "finn2017"])
def test_the_number_of_threads_changes_nothing(preset: Preset) -> None:
    for one, other in zip(simulated(preset), simulated(preset, threads=4), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(("frame_skip", "steps"), [(1, 60), (5, 40)])
def test_steps_are_those_of_gymnasium(frame_skip: int, steps: int) -> None:
    states, seen, rewards, ends = simulated(steps=steps, frame_skip=frame_skip)
    env = gymnasium.make("Ant-v5", frame_skip=frame_skip).unwrapped
    env.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    touched = 0.0
    for task, number, sign in ((0, 0, 1), (0, 2, 1), (1, 1, -1)):
        env.reset(seed=0)
        start = states[0, task, number].numpy()
        env.set_state(start[:15], start[15:29])
        np.testing.assert_allclose(env._get_obs(), seen[0, task, number].numpy(), atol=1e-6)
        for step in range(steps):
            theirs, reward, ended, _, info = env.step(actions(step)[task, number].numpy())
            ours = states[step + 1, task, number].numpy()
            np.testing.assert_allclose(ours[2:29], theirs[:27], atol=1e-10)
            np.testing.assert_allclose(ours[30:].clip(-1, 1), theirs[27:], atol=1e-10)
            np.testing.assert_allclose(seen[step + 1, task, number].numpy(), theirs, rtol=1e-6, atol=1e-6)
            expected = reward + (sign - 1) * info["reward_forward"]
            assert float(rewards[step + 1, task, number]) == pytest.approx(expected, abs=1e-5)
            assert bool(ends[step + 1, task, number]) == ended
            touched += abs(theirs[27:]).sum()
    env.close()
    assert touched > 10  # or the equality of forces would say nothing


def test_steps_of_finn2017_are_those_of_its_code() -> None:
    env, generator = AntVel("finn2017"), torch.Generator().manual_seed(0)
    tasks = env.draw_tasks(0, np.arange(1))
    state, seen = env.reset(tasks, 1, generator)
    model = gymnasium.make("Ant-v5").unwrapped.model
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    model.opt.timestep, model.geom_solimp[:, :3] = 0.02, (0.8, 0.8, 0.01)
    model.actuator_gear[:, 0], model.actuator_ctrlrange[:] = 1, (-30, 30)  # as rllab writes it
    data, touched = mujoco.MjData(model), 0.0
    data.qpos[:], data.qvel[:] = state[0, 0, :15].numpy(), state[0, 0, 15:29].numpy()
    for step in range(61):
        action = torch.rand(1, 1, 8, generator=generator) * 2.4 - 1.2
        reward, mass = 0.0, model.body_mass
        if step:  # the first time round is the reset
            state, seen, rewards, _ = env.step(tasks, state, action, generator)
            reward = float(rewards)
            data.ctrl[:] = 30 * action[0, 0].clamp(-1, 1)
            mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        forces = np.clip(data.cfrc_ext, -1, 1)
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, data.qpos[3:7] / np.linalg.norm(data.qpos[3:7]))
        centre = mass @ data.xipos / mass.sum()
        expected = np.concatenate([data.qpos, data.qvel, forces.ravel(), rotation, centre])
        np.testing.assert_allclose(seen[0, 0].numpy(), expected, rtol=1e-6, atol=1e-5)
        if step:
            parts = np.zeros((model.nbody, 6))
            for body in range(model.nbody):
                mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body, parts[body], 0)
            speed = mass @ parts[:, 3] / mass.sum()
            cost = 0.005 * np.square(action.clamp(-1, 1).numpy()).sum() + 0.0005 * np.square(forces).sum()
            assert reward == pytest.approx(1 - abs(speed - float(tasks["velocity"][0])) + 0.05 - cost, abs=1e-5)
        touched += abs(forces).sum()
    assert touched > 10


GOLDEN: dict[Preset, list[float]] = {  # of MuJoCo 3.17
    "gym": [0.796394, 0.218335, 0.667629, 0.990558, -0.643326, -0.95478, -1.376355],
    "finn2017": [-0.016579, 0.105459, 0.549532, 0.997852, 0.108761, 0.085708, -0.033893],
}


@pytest.mark.parametrize("preset", GOLDEN)
def test_a_golden_trajectory(preset: Preset) -> None:
    states, _, rewards, _ = simulated(preset)
    found = [*states[-1, 1, 1, :4].tolist(), *rewards[[1, 10, 20], 1, 1].tolist()]
    np.testing.assert_allclose(found, GOLDEN[preset], rtol=1e-4)


@pytest.mark.parametrize(("preset", "numbers"), [("gym", 105), ("finn2017", 125)])
def test_an_observation_has_the_numbers_of_the_preset_and_the_goal_where_told(preset: Preset, numbers: int) -> None:
    for tells_goal in (False, True):
        env, generator = AntVel(preset, tells_goal=tells_goal), torch.Generator().manual_seed(0)
        tasks = env.draw_tasks(0, np.arange(3))
        state, seen = env.reset(tasks, 2, generator)
        after = env.step(tasks, state, torch.zeros(3, 2, 8), generator).observations
        for one in (seen, after):
            assert one.shape == (3, 2, numbers + tells_goal) == (3, 2, env.features)
            if tells_goal:
                torch.testing.assert_close(one[..., -1], tasks["velocity"][:, None].expand(3, 2))


@pytest.mark.parametrize("preset", ["gym", "finn2017"])
@pytest.mark.parametrize(("height", "done"), [(0.1, True), (0.55, False), (1.3, True)])
def test_an_ant_is_done_when_its_torso_is_too_low_or_too_high(preset: Preset, height: float, done: bool) -> None:
    env, generator = AntDir(preset, frame_skip=1), torch.Generator().manual_seed(0)
    tasks = {"direction": torch.ones(1)}
    state, _ = env.reset(tasks, 1, generator)
    state[..., 2] = height
    assert bool(env.step(tasks, state, torch.zeros(1, 1, 8), generator).done) == done


def test_a_fallen_ant_is_paid_nothing_more() -> None:
    torch.manual_seed(0)
    env = AntDir(horizon=100, frame_skip=5)
    policy = GaussianPolicy(env.features, env.actions)
    weights = {name: tensor.expand(2, *tensor.shape) for name, tensor in policy.named_parameters()}
    tasks = {"direction": torch.tensor([1.0, -1.0])}
    found = collect(env, policy, weights, tasks, 6, torch.Generator().manual_seed(0))
    after = found.mask == 0
    assert after.any()
    assert not found.mask[:, 0].eq(0).any()
    assert (found.rewards[after] == 0).all()


def test_goals_are_drawn_from_the_whole_range() -> None:
    speeds = AntVel().draw_tasks(0, np.arange(500))["velocity"]
    assert 0 <= float(speeds.min()) < 0.1
    assert 2.9 < float(speeds.max()) < 3
    assert set(AntDir().draw_tasks(0, np.arange(50))["direction"].tolist()) == {1.0, -1.0}


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="frame_skip >= 1 and threads >= 1; found 5 and 0"):
        AntDir(threads=0)
    with pytest.raises(ValueError, match="made of"):
        AntVel().reset({"direction": torch.ones(1)}, 1, torch.Generator())
