"""Training learns, is the same by seed, and resumes as if there had been no break."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from kshot.checkpoint import load_checkpoint
from kshot.evaluation import compare
from kshot.rl.environments.bandit import Bandit
from kshot.rl.environments.base import Transition
from kshot.rl.environments.navigation import Navigation2D
from kshot.rl.evaluation import adaptation_curve
from kshot.rl.gradient_learner import Setting
from kshot.rl.maml_trpo import MAMLTRPO
from kshot.rl.policies import policy_for
from kshot.rl.training import train_policy
from kshot.training import Report

SMALL = Setting(tasks=4, trajectories=4, test_rates=(0.1,))


def learner() -> MAMLTRPO:
    torch.manual_seed(0)
    return MAMLTRPO(policy_for(Navigation2D(), (8,), nn.Tanh))


def weights(learner: MAMLTRPO) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in learner.policy.parameters()])


def lines(folder: Path) -> list[dict[str, object]]:
    told = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in told]


def test_a_resumed_run_is_the_run_without_a_break(tmp_path: Path) -> None:
    environment = Navigation2D(horizon=6)
    whole, broken, again = learner(), learner(), learner()
    train_policy(whole, environment, SMALL, steps=4, every=2, validation_tasks=3, out=tmp_path / "whole")
    train_policy(broken, environment, SMALL, steps=2, every=2, validation_tasks=3, out=tmp_path / "broken")
    how = {"every": 2, "validation_tasks": 3, "out": tmp_path / "broken", "resume": True}
    trained = train_policy(again, environment, SMALL, steps=4, **how)  # type: ignore[arg-type]
    assert (trained.reason, trained.steps) == ("steps", 4)
    assert torch.equal(weights(whole), weights(again))
    assert lines(tmp_path / "whole") == lines(tmp_path / "broken")
    assert load_checkpoint(tmp_path / "broken/last.safetensors")["position"]["step"] == 4
    other = learner()
    train_policy(other, environment, SMALL, steps=4, seed=1)
    assert not torch.equal(weights(whole), weights(other))


def test_ctrl_c_saves_the_step_that_it_met(tmp_path: Path) -> None:
    def interrupt(report: Report) -> None:
        if report.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    environment, how = Navigation2D(horizon=6), {"every": 2, "validation_tasks": 3}
    whole, broken, again = learner(), learner(), learner()
    train_policy(whole, environment, SMALL, steps=4, out=tmp_path / "whole", **how)  # type: ignore[arg-type]
    folder = tmp_path / "broken"
    trained = train_policy(broken, environment, SMALL, steps=4, out=folder, watch=interrupt, **how)  # type: ignore[arg-type]
    assert (trained.reason, trained.steps) == ("interrupted", 3)
    train_policy(again, environment, SMALL, steps=4, out=folder, resume=True, **how)  # type: ignore[arg-type]
    assert torch.equal(weights(whole), weights(again))
    assert lines(tmp_path / "whole") == lines(folder)


def test_a_run_killed_before_its_first_validation_goes_on(tmp_path: Path) -> None:
    def kill(report: Report) -> None:
        raise KeyboardInterrupt

    environment, whole, again = Navigation2D(horizon=3), learner(), learner()
    train_policy(whole, environment, SMALL, steps=2, validation_tasks=2)
    with pytest.raises(KeyboardInterrupt):
        train_policy(learner(), environment, SMALL, steps=2, validation_tasks=2, out=tmp_path, watch=kill)
    train_policy(again, environment, SMALL, steps=2, validation_tasks=2, out=tmp_path, resume=True)
    assert torch.equal(weights(whole), weights(again))


def test_a_clock_that_runs_out_behind_a_step_still_validates_the_last(tmp_path: Path) -> None:
    told = {"every": 1000, "validation_tasks": 2, "out": tmp_path, "watch": lambda _: time.sleep(0.2)}
    trained = train_policy(learner(), Navigation2D(horizon=2), SMALL, minutes=0.5 / 60, **told)  # type: ignore[arg-type]
    assert trained.reason == "minutes"
    assert trained.best is not None
    assert load_checkpoint(tmp_path / "last.safetensors")["position"]["step"] == trained.steps


def test_a_run_is_not_overwritten_and_needs_a_budget(tmp_path: Path) -> None:
    train_policy(learner(), Navigation2D(horizon=3), SMALL, steps=1, validation_tasks=2, out=tmp_path)
    with pytest.raises(ValueError, match="already holds a run"):
        train_policy(learner(), Navigation2D(horizon=3), SMALL, steps=1, out=tmp_path)
    with pytest.raises(ValueError, match="needs a budget"):
        train_policy(learner(), Navigation2D())
    for wrong in ({"every": 0}, {"validation_tasks": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match="expected every >= 1"):
            train_policy(learner(), Navigation2D(), steps=1, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected tasks >= 1"):
        adaptation_curve(learner().inner, Navigation2D(), tasks=0)
    with pytest.raises(ValueError, match="expected tasks >= 1"):
        Setting(tasks=0)


class Failing(Navigation2D):
    """A simulator that pays NaN from its third outer step on."""

    calls = 0

    def step(self, tasks, state, actions, generator):  # type: ignore[no-untyped-def]
        self.calls += 1
        moved = super().step(tasks, state, actions, generator)
        late = self.calls > 2 * 2 * self.horizon
        return moved._replace(rewards=moved.rewards * torch.nan) if late else Transition(*moved)


def test_a_failure_names_the_outer_step_and_training_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    setting = Setting(tasks=2, trajectories=2, test_rates=())
    failing = Failing(horizon=3)
    with pytest.raises(
        FloatingPointError, match=r"outer step 2: Failing: the reward is not finite at step \d of task 0"
    ):
        train_policy(learner(), failing, setting, steps=4, every=1, validation_tasks=1, out=tmp_path)
    resumed = learner()
    told = {"every": 1, "validation_tasks": 1, "out": tmp_path}
    train_policy(resumed, Navigation2D(horizon=3), setting, steps=4, resume=True, **told)  # type: ignore[arg-type]
    whole = learner()
    train_policy(whole, Navigation2D(horizon=3), setting, steps=4)
    assert torch.equal(weights(whole), weights(resumed))


def test_a_failure_in_validation_names_the_outer_step() -> None:
    failing = Failing(horizon=3)
    failing.calls = failing.horizon  # one stage less until it fails
    with pytest.raises(FloatingPointError, match="validation after outer step 1: Failing: the reward"):
        train_policy(learner(), failing, Setting(tasks=2, trajectories=2, test_rates=(0.1,)), steps=4, every=1)


def test_meta_training_on_bandits_makes_one_step_worth_more_than_chance() -> None:
    environment = Bandit(arms=2, pulls=10)
    torch.manual_seed(0)
    maml = MAMLTRPO(policy_for(environment, (8,), nn.Tanh), lr=0.5)
    before = adaptation_curve(maml.inner, environment, tasks=60, rates=(0.5,), trajectories=10)
    train_policy(maml, environment, Setting(tasks=20, trajectories=10), steps=15)
    after = adaptation_curve(maml.inner, environment, tasks=60, rates=(0.5,), trajectories=10)
    assert before[0].mean == pytest.approx(5, abs=1)
    gained = compare(after[1], before[1])  # on the same bandits
    assert gained.difference > gained.ci95


def test_a_curve_is_the_same_by_seed_and_says_what_it_measured() -> None:
    one, same = (adaptation_curve(learner().inner, Navigation2D(5), tasks=3, trajectories=2) for _ in "12")
    other = adaptation_curve(learner().inner, Navigation2D(5), tasks=3, trajectories=2, seed=5)
    assert all(torch.equal(a.scores, b.scores) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0].scores, other[0].scores)
    assert one[2].stamp["inner steps"] == "2 of 0.1, 0.05"
    assert one[2].stamp["task seed"] == "2"
