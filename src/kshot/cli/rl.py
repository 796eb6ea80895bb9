"""``kshot rl train``, ``resume`` and ``eval``."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from kshot.allocator import keep_freed_memory
from kshot.checkpoint import load_checkpoint, write_atomically
from kshot.cli.rl_options import (
    GradientPolicyOptions,
    MAMLPolicyOptions,
    PolicyOptions,
    PretrainedPolicyOptions,
    ProMPOptions,
    RL2Options,
    RLEval,
    RLResume,
    RLTrain,
)
from kshot.cli.run_config import versions
from kshot.progress import show_progress
from kshot.rl.environments.bandit import Bandit
from kshot.rl.environments.base import Environment
from kshot.rl.environments.navigation import Navigation2D
from kshot.rl.environments.tabular_mdp import TabularMDP
from kshot.rl.evaluation import TEST_SEED
from kshot.rl.gradient_learner import Setting
from kshot.rl.learner import PolicyLearner
from kshot.rl.maml_trpo import MAMLTRPO
from kshot.rl.policies import Policy, policy_for
from kshot.rl.ppo import PPO
from kshot.rl.promp import ProMP
from kshot.rl.recurrent_policy import RecurrentPolicy
from kshot.rl.rl2 import RL2, TrialSetting
from kshot.rl.training import train_policy
from kshot.run_folder import RunFolder

__all__ = ["run_rl"]

_CORES = os.cpu_count() or 1
_LEARNERS: dict[str, type[PolicyOptions]] = {
    "maml": MAMLPolicyOptions,
    "promp": ProMPOptions,
    "pretrained": PretrainedPolicyOptions,
    "rl2": RL2Options,
}


def run_rl(command: RLTrain | RLResume | RLEval) -> None:
    """Run one of the commands."""
    keep_freed_memory()
    torch.set_num_threads(1)  # such nets are too small for more
    match command:
        case RLTrain(learner):
            options: PolicyOptions = learner
            folder = options.out or Path("runs") / f"rl-{_name(options)}-{options.env}"
            if options.minutes is None and options.steps is None:
                options = replace(options, minutes=3.0)
            RunFolder(folder)
            _train(folder, options, resuming=False)
        case RLResume(run):
            options = _load_options(run)
            if command.minutes is not None or command.steps is not None:
                options = replace(options, minutes=command.minutes, steps=command.steps)
            RunFolder(run, resume=True)
            _train(run, options, resuming=True)
        case RLEval():
            _evaluate(command)


def _train(folder: Path, options: PolicyOptions, resuming: bool) -> None:
    console = Console(markup=False)
    learner, environment = _built(options)
    content = {"rl": _name(options), "options": {**asdict(options), "out": None}, "versions": versions()}
    write_atomically(folder / "config.json", json.dumps(content, indent=2).encode())
    with show_progress("training", console) as watch:
        trained = train_policy(
            learner,
            environment,
            _setting(options),
            steps=options.steps,
            minutes=options.minutes,
            every=options.every,
            validation_tasks=1000 if isinstance(options, RL2Options) else 40,  # its trials are short and cheap
            out=folder,
            resume=resuming,
            seed=options.seed,
            watch=watch,
        )
    console.print(f"{trained.steps:,} steps in {trained.seconds:,.0f} s, ended by: {trained.reason}", highlight=False)
    more = f"Saved. Go on with: kshot rl resume {folder}"
    ended = f"Judge it in new tasks with: kshot rl eval {folder}"
    console.print(more if trained.reason == "interrupted" else ended, highlight=False, soft_wrap=True)


def _evaluate(command: RLEval) -> None:
    console = Console(markup=False)
    options = _load_options(command.run)
    learner, environment = _built(options)
    best = command.run / "best.safetensors"
    if not best.is_file():
        raise ValueError(f"{command.run} has no best weights so far: its first validation has not come.")
    learner.policy.load_state_dict(load_checkpoint(best)["learner"])
    if command.tasks < 1 or command.trajectories < 1:
        raise ValueError(
            f"expected a task and a trajectory at least; found {command.tasks} and {command.trajectories}."
        )
    setting = _setting(options)
    if isinstance(setting, Setting):
        rates = setting.test_rates or Setting().test_rates if command.rates is None else command.rates
        setting = replace(setting, trajectories=command.trajectories, test_rates=rates)
    elif command.rates is not None:
        raise ValueError("--rates: a policy with a memory takes no gradient steps. Leave it out.")
    with console.status("adapting to new tasks"):
        results = learner.judge(environment, setting, command.tasks, TEST_SEED)
    for number, result in enumerate(results):
        stage = f"{number} steps" if isinstance(setting, Setting) else f"episode {number + 1}"
        console.print(f"{stage}: {result.metric} {result.short()}", highlight=False)
    console.print(str(results[-1]), highlight=False, soft_wrap=True)


def _setting(options: PolicyOptions) -> Setting | TrialSetting:
    match options:
        case MAMLPolicyOptions() | ProMPOptions():
            lr = options.inner_lr
            return Setting(options.tasks, options.trajectories, options.inner_steps, test_rates=(lr, lr / 2, lr / 2))
        case GradientPolicyOptions():
            return Setting(options.tasks, options.trajectories, steps=0, test_rates=())
        case RL2Options():
            return TrialSetting(options.tasks, options.episodes)
    raise TypeError(f"nothing is collected for {type(options).__name__}.")


def _built(options: PolicyOptions) -> tuple[PolicyLearner[Any], Environment]:
    torch.manual_seed(options.seed)
    environment = _environment(options)
    if isinstance(options, RL2Options):
        memory = RecurrentPolicy(environment.features, environment.actions, options.hidden)
        return RL2(PPO(memory, torch.optim.Adam(memory.parameters(), options.lr))), environment
    if isinstance(options, GradientPolicyOptions):
        return _adapting(options, policy_for(environment, options.hidden)), environment
    raise TypeError(f"no learner goes by {type(options).__name__}.")


def _adapting(options: GradientPolicyOptions, policy: Policy) -> PolicyLearner[Any]:
    match options:
        case MAMLPolicyOptions():
            return MAMLTRPO(
                policy,
                options.inner_lr,
                first_order=options.first_order,
                radius=options.radius,
                fisher_tasks=options.fisher_tasks,
                threads=_CORES,
            )
        case ProMPOptions():
            optimizer = torch.optim.Adam(policy.parameters(), options.lr)
            sizes = {"lr": options.inner_lr, "clip": options.clip}
            return ProMP(policy, optimizer, epochs=options.epochs, **sizes)
        case PretrainedPolicyOptions():
            return MAMLTRPO(policy, radius=options.radius, threads=_CORES)
    raise TypeError(f"no learner goes by {type(options).__name__}.")


def _environment(options: PolicyOptions) -> Environment:
    if options.preset != "gym" and options.env in ("navigation2d", "bandit", "tabular-mdp"):
        raise ValueError(f"--preset is of half-cheetahs and ants, not of {options.env}. Leave it out.")
    told = {"tells_goal": True} if isinstance(options, PretrainedPolicyOptions) and options.tells_goal else {}
    match options.env:
        case "navigation2d":
            return Navigation2D(**told)
        case "bandit" | "tabular-mdp" if told:
            raise ValueError(f"--tells-goal: a task of {options.env} has no goal. Leave it out.")
        case "bandit":
            return Bandit()
        case "tabular-mdp":
            return TabularMDP()
    from kshot.rl.environments.ant import AntDir, AntVel
    from kshot.rl.environments.half_cheetah import HalfCheetahDir, HalfCheetahVel
    from kshot.rl.environments.slopes import HalfCheetahSlope

    runners: dict[str, Callable[..., Environment]] = {
        "half-cheetah-dir": HalfCheetahDir,
        "half-cheetah-vel": HalfCheetahVel,
        "half-cheetah-slope": HalfCheetahSlope,
        "ant-dir": AntDir,
        "ant-vel": AntVel,
    }
    return runners[options.env](options.preset, threads=_CORES, **told)


def _name(options: PolicyOptions) -> str:
    return next(name for name, kind in _LEARNERS.items() if kind is type(options))


def _load_options(folder: Path) -> PolicyOptions:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        told = content["options"]
        told["hidden"] = tuple(told["hidden"]) if isinstance(told["hidden"], list) else told["hidden"]
        return _LEARNERS[content["rl"]](**told)
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is not a run of kshot rl: its config.json cannot be read ({error}).") from error
