"""Meta-World's benchmarks: which tasks there are, one step of training, and success. make test-metaworld runs it whole."""

import builtins
import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kshot.rl.adaptation import PolicyGradientSteps
from kshot.rl.environments import meta_world as module
from kshot.rl.environments.meta_world import meta_world, success_curve
from kshot.rl.environments.simulators import Copies
from kshot.rl.environments.vector import VectorEnvironment
from kshot.rl.gradient_learner import Setting
from kshot.rl.maml_trpo import MAMLTRPO
from kshot.rl.policies import GaussianPolicy, policy_for
from kshot.rl.training import train_policy

installed = pytest.mark.skipif(not importlib.util.find_spec("metaworld"), reason="kshot[metaworld] is not installed")


def test_without_it_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **told: Any) -> Any:
        if name == "metaworld":
            raise ImportError(name)
        return real(name, *args, **told)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'kshot\[metaworld\]'"):
        meta_world("reach-v3", goals_seed=-1)


def test_families_take_turns_and_goals_come_once_before_any_comes_again() -> None:
    found = module._draw(5, 50, 3, np.arange(500))
    assert np.array_equal(found["family"], np.arange(500) % 5)
    for family in range(5):
        goals = found["goal"][family::5]
        assert sorted(goals[:50]) == sorted(goals[50:]) == list(range(50))
        assert not np.array_equal(goals[:50], goals[50:])
    part = module._draw(5, 50, 3, np.array([499, 7]))
    assert part["goal"].tolist() == found["goal"][[499, 7]].tolist()
    assert not np.array_equal(found["goal"], module._draw(5, 50, 4, np.arange(500))["goal"])


@installed
def test_reach_trains_a_step_and_tells_success_on_goals_that_it_holds_out() -> None:
    train, test = (meta_world("reach-v3", split, horizon=20) for split in ("train", "test"))
    assert (train.features, train.actions, train.discrete) == (39, 4, False)
    assert test.stamp["split"] == "test"
    assert test.stamp["physics"].startswith("Meta-World 3.1.1, MuJoCo 3.3.0")
    learner = MAMLTRPO(policy_for(train, (16,), nn.Tanh))
    trained = train_policy(learner, train, Setting(2, 2, test_rates=(0.1,)), steps=1, validation_tasks=2)
    assert trained.steps == 1
    curve = success_curve(learner.inner, test, tasks=3, rates=(0.1,), trajectories=2)
    assert [one.scores.shape for one in curve] == [(3,), (3,)]
    assert curve[1].stamp["inner steps"] == "1 of 0.1"
    assert all(0 <= one.mean <= 1 for one in curve)


@installed
@pytest.mark.filterwarnings("ignore:Constant.* may be too high:UserWarning")
def test_reward_and_success_are_those_of_a_policy_that_solves_it() -> None:
    import metaworld
    from metaworld.policies import SawyerReachV3Policy

    expert, environment = SawyerReachV3Policy(), meta_world("reach-v3", "test", horizon=150)
    tasks, generator = environment.draw_tasks(2, np.arange(2)), torch.Generator()
    state, seen = environment.reset(tasks, 1, generator)
    benchmark = metaworld.ML1("reach-v3", seed=0)
    for task in range(2):
        env: Any = benchmark.test_classes["reach-v3"]()
        env.set_task(benchmark.test_tasks[int(tasks["goal"][task])])
        np.testing.assert_allclose(env.reset()[0], seen[task, 0], atol=1e-6)
        assert env._target_pos is not None
    goals = [one._target_pos for one in environment._simulators._rows]  # type: ignore[attr-defined]
    assert not np.allclose(*goals)
    for _ in range(150):
        rows = [np.concatenate([seen[i, 0, :36].numpy(), goals[i]]) for i in range(2)]
        actions = torch.from_numpy(np.stack([expert.get_action(row) for row in rows])).float()[:, None]
        state, seen, rewards, _ = environment.step(tasks, state, actions, generator)
    assert environment.successes[-1].all()
    assert (rewards > 8).all()
    environment.close()


@installed
def test_ml10_tests_families_that_it_does_not_train() -> None:
    train, test = (meta_world("ML10", split, horizon=3) for split in ("train", "test"))
    names = []
    for environment, families in ((train, 10), (test, 5)):
        tasks, generator = environment.draw_tasks(0, np.arange(families)), torch.Generator()
        state, _ = environment.reset(tasks, 1, generator)
        for _ in range(3):
            state, seen, rewards, _ = environment.step(tasks, state, torch.zeros(families, 1, 4), generator)
        assert seen.isfinite().all()
        assert rewards.isfinite().all()
        names.append({type(env).__name__ for env in environment._simulators._rows})  # type: ignore[attr-defined]
        environment.close()
    assert [len(one) for one in names] == [10, 5]
    assert not names[0] & names[1]


@installed
def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="expected ML10, ML25, ML45 or a family such as 'reach-v3'; found 'reach'"):
        meta_world("reach")


def test_a_split_or_a_horizon_that_is_not_there_is_refused() -> None:
    with pytest.raises((ValueError, TypeError), match="'val'"):  # tests check types, which is a TypeError before it
        meta_world("reach-v3", "val")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at most 500 steps; found horizon 501"):
        meta_world("reach-v3", horizon=501)


def test_success_is_not_told_where_it_is_not_counted() -> None:
    import gymnasium

    def draw(seed: int, items: Any) -> dict[str, Any]:
        return {"g": np.ones(len(items))}

    environment = VectorEnvironment(Copies(lambda: gymnasium.make("Pendulum-v1")), draw, 5)
    with pytest.raises(ValueError, match="pass success= to the simulators"):
        success_curve(PolicyGradientSteps(GaussianPolicy(3, 1), lr=0.1), environment)
