"""``kshot rl``: a policy from training to its curve of adaptation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kshot = Callable[..., Any]
SMALL = ("--tasks", "2", "--trajectories", "2", "--hidden", "8", "--every", "1")


@pytest.mark.parametrize("learner", ["maml", "promp", "pretrained"])
@pytest.mark.parametrize("env", ["navigation2d", "bandit", "tabular-mdp", "half-cheetah-dir"])
def test_train_resume_and_eval(kshot: Kshot, learner: str, env: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ran = kshot("rl", "train", learner, "--env", env, *SMALL, "--steps", "1", "--out", run)
    assert ran.code == 0, ran.err
    assert "1 steps" in ran.out
    ran = kshot("rl", "resume", run, "--steps", "2")
    assert ran.code == 0, ran.err
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    ran = kshot("rl", "eval", run, "--tasks", "3", "--trajectories", "2", "--rates", "0.1", "0.05")
    assert ran.code == 0, ran.err
    assert [line.split(":")[0] for line in ran.out.splitlines()[:3]] == ["0 steps", "1 steps", "2 steps"]


@pytest.mark.parametrize("env", ["bandit", "tabular-mdp"])
def test_a_recurrent_policy_is_judged_by_episodes(kshot: Kshot, env: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    few = ("--tasks", "4", "--hidden", "8", "--episodes", "2")
    ran = kshot("rl", "train", "rl2", "--env", env, *few, "--steps", "1", "--out", run)
    assert ran.code == 0, ran.err
    ran = kshot("rl", "resume", run, "--steps", "2")
    assert ran.code == 0, ran.err
    assert "takes no gradient steps" in kshot("rl", "eval", run, "--rates", "0.1").err
    ran = kshot("rl", "eval", run, "--tasks", "3")
    assert ran.code == 0, ran.err
    assert [line.split(":")[0] for line in ran.out.splitlines()[:2]] == ["episode 1", "episode 2"]


def test_a_policy_that_is_told_the_goal(kshot: Kshot, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ran = kshot("rl", "train", "pretrained", "--tells-goal", *SMALL, "--steps", "1", "--out", run)
    assert ran.code == 0, ran.err
    ran = kshot("rl", "eval", run, "--tasks", "3", "--trajectories", "2", "--rates", "0.1")
    assert "position and goal" in ran.out
    ran = kshot("rl", "train", "pretrained", "--env", "bandit", "--tells-goal", *SMALL, "--out", tmp_path / "other")
    assert "has no goal" in ran.err


def test_what_is_no_run_is_refused(kshot: Kshot, tmp_path: Path) -> None:
    assert "is not a run of kshot rl" in kshot("rl", "eval", tmp_path).err
    run = tmp_path / "run"
    assert kshot("rl", "train", "maml", *SMALL, "--steps", "1", "--out", run).code == 0
    assert kshot("rl", "train", "maml", *SMALL, "--steps", "1", "--out", run).code != 0
    assert "expected a task" in kshot("rl", "eval", run, "--tasks", "0").err
    assert "--preset is of half-cheetahs" in kshot("rl", "train", "maml", "--preset", "finn2017", *SMALL).err
    (run / "best.safetensors").unlink()
    assert "no best weights" in kshot("rl", "eval", run).err


def test_eval_adapts_as_the_run_was_validated(kshot: Kshot, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert kshot("rl", "train", "maml", *SMALL, "--inner-lr", "0.5", "--steps", "1", "--out", run).code == 0
    assert "3 of 0.5, 0.25, 0.25" in kshot("rl", "eval", run, "--tasks", "2", "--trajectories", "2").out


def test_a_refused_resume_changes_nothing(kshot: Kshot, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert kshot("rl", "train", "maml", *SMALL, "--steps", "1", "--out", run).code == 0
    (run / "last.safetensors").unlink()
    told = (run / "config.json").read_text()
    assert "holds no run to resume" in kshot("rl", "resume", run, "--steps", "9").err
    assert (run / "config.json").read_text() == told
