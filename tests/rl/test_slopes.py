"""Half-cheetahs on slopes: a level slope is no slope, and a steep one is gravity's."""

import math

import mujoco
import numpy as np
import pytest
import torch

from kshot.rl.environments.half_cheetah import HalfCheetahDir
from kshot.rl.environments.slopes import HalfCheetahSlope


def far(slopes: list[float], threads: int = 1, steps: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Return states and rewards of two cheetahs on each slope, all of which do the same."""
    env, generator = HalfCheetahSlope(threads=threads), torch.Generator().manual_seed(0)
    tasks = {"slope": torch.tensor(slopes)}
    state, _ = env.reset({"slope": torch.zeros(1)}, 2, generator)
    state, rewards = state.expand(len(slopes), -1, -1), []
    for _ in range(steps):
        action = torch.rand(1, 2, 6, generator=generator).expand(len(slopes), -1, -1) * 2 - 1
        found = env.step(tasks, state, action, generator)
        state = found.state
        rewards.append(found.rewards)
    env.close()
    return state, torch.stack(rewards)


def test_no_slope_is_the_cheetah_that_runs_forward() -> None:
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    envs = (HalfCheetahSlope(), HalfCheetahDir())
    tasks = ({"slope": torch.zeros(2)}, {"direction": torch.ones(2)})
    states = [env.reset(task, 3, own)[0] for env, task, own in zip(envs, tasks, generators, strict=True)]
    for step in range(20):
        action = torch.rand(2, 3, 6, generator=torch.Generator().manual_seed(step)) * 2 - 1
        ours, theirs = (
            env.step(task, s, action, generators[0]) for env, task, s in zip(envs, tasks, states, strict=True)
        )
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
        states = [ours.state, theirs.state]


def test_uphill_is_slower() -> None:
    states, _ = far([-20.0, -5.0, 0.0, 5.0, 20.0])
    come = states[..., 1].mean(1)
    assert (come.diff() < 0).all()


def test_a_cheetah_in_the_air_falls_as_gravity_says() -> None:
    env, generator = HalfCheetahSlope(frame_skip=1), torch.Generator().manual_seed(0)
    tasks = {"slope": torch.tensor([30.0, -12.0])}
    state, _ = env.reset(tasks, 1, generator)
    state[..., 1:] = 0
    state[..., 2] = 10
    after = env.step(tasks, state, torch.zeros(2, 1, 6), generator).state[:, 0]
    for row, degrees in zip(after, (30, -12), strict=True):
        moving = row[10:12] / 0.01  # along the slope, and away from it
        fall = [-9.81 * math.sin(math.radians(degrees)), -9.81 * math.cos(math.radians(degrees))]
        np.testing.assert_allclose(moving.numpy(), fall, rtol=1e-3)


def test_threads_and_other_tasks_beside_it_change_nothing() -> None:
    together = far([-20.0, 0.0, 20.0], threads=3)
    torch.testing.assert_close(together[0][2:], far([20.0])[0], rtol=0, atol=0)
    torch.testing.assert_close(together[1][:, :1], far([-20.0])[1], rtol=0, atol=0)


def test_more_tasks_than_are_kept_are_still_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kshot.rl.environments.slopes._KEPT", 1)
    env, generator = HalfCheetahSlope(), torch.Generator().manual_seed(0)
    state, _ = env.reset({"slope": torch.zeros(2)}, 1, generator)
    nothing = torch.zeros(2, 1, 6)
    for slopes in ([1.0, 2.0], [2.0, 3.0], [4.0, 5.0], [1.0, 2.0]):
        found = env.step({"slope": torch.tensor(slopes)}, state, nothing, generator)
        new = HalfCheetahSlope().step({"slope": torch.tensor(slopes)}, state, nothing, generator)
        torch.testing.assert_close(found.state, new.state, rtol=0, atol=0)
        assert len(env._tilted) <= 3


def test_slopes_are_drawn_from_the_range_and_told_where_asked() -> None:
    env, generator = HalfCheetahSlope("finn2017", tells_goal=True, slopes=(10.0, 20.0)), torch.Generator()
    tasks = env.draw_tasks(0, np.arange(200))
    assert 10 <= float(tasks["slope"].min()) < 11
    assert 19 < float(tasks["slope"].max()) < 20
    _, seen = env.reset(tasks, 1, generator)
    assert seen.shape == (200, 1, 21)
    torch.testing.assert_close(seen[:, 0, -1], tasks["slope"])
    assert env.stamp["slopes"] == "10 to 20 degrees"
    assert env.stamp["physics"] == f"MuJoCo {mujoco.__version__}, 1 x 0.01 s a step"


def test_slopes_out_of_order_are_refused() -> None:
    for wrong in ((5.0, -5.0), (0.0, 90.0)):
        with pytest.raises(ValueError, match="slopes must be"):
            HalfCheetahSlope(slopes=wrong)
