"""What can be said to ``kshot rl``. Nothing here imports torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from tyro.conf import OmitSubcommandPrefixes, Positional, subcommand

__all__ = [
    "RL",
    "GradientPolicyOptions",
    "MAMLPolicyOptions",
    "PolicyOptions",
    "PretrainedPolicyOptions",
    "ProMPOptions",
    "RL2Options",
    "RLEval",
    "RLResume",
    "RLTrain",
]

EnvironmentName: TypeAlias = Literal[
    "navigation2d",
    "bandit",
    "tabular-mdp",
    "half-cheetah-dir",
    "half-cheetah-vel",
    "half-cheetah-slope",
    "ant-dir",
    "ant-vel",
]


@dataclass(frozen=True)
class PolicyOptions:
    """What every way of training a policy is told."""

    env: EnvironmentName = "navigation2d"
    """The distribution of tasks."""
    preset: Literal["gym", "finn2017"] = "gym"
    """Timing, observations and reward of half-cheetahs and ants: Gymnasium's, or those of Finn et al. 2017."""
    out: Path | None = None
    """Folder of the run; runs/rl-LEARNER-ENV by default."""
    minutes: float | None = None
    """Budget in minutes; three where there is none."""
    steps: int | None = None
    """Budget in outer steps."""
    tasks: int = 20
    """Tasks of an outer step."""
    every: int = 10
    """Outer steps between validations and checkpoints."""
    seed: int = 0
    """Of weights, tasks and all that is random."""


@dataclass(frozen=True)
class GradientPolicyOptions(PolicyOptions):
    """What every policy that adapts by gradient steps is told."""

    trajectories: int = 20
    """Trajectories of each task before each inner step, and after the last."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the policy's layers."""


@dataclass(frozen=True)
class MAMLPolicyOptions(GradientPolicyOptions):
    """MAML: policy-gradient steps inside, a trust-region step outside (Finn et al. 2017)."""

    inner_steps: int = 1
    """Inner steps in training."""
    inner_lr: float = 0.1
    """Inner step size; in a new task it is halved after the first step."""
    first_order: bool = False
    """Leave second derivatives out."""
    radius: float = 0.01
    """Of the trust region."""
    fisher_tasks: int | None = None
    """Take the Fisher information of so many of the tasks, which is faster, in place of all."""


@dataclass(frozen=True)
class PretrainedPolicyOptions(GradientPolicyOptions):
    """One policy for all tasks together by TRPO: the multi-task baseline, which a new task then fine-tunes."""

    tells_goal: bool = False
    """Observations end with the goal: a goal-conditioned policy, the oracle of the paper. In navigation2d and on legs."""
    radius: float = 0.01
    """Of the trust region."""


@dataclass(frozen=True)
class ProMPOptions(GradientPolicyOptions):
    """Proximal meta-policy search: policy-gradient steps inside, gradient steps on clipped ratios outside."""

    inner_steps: int = 1
    """Inner steps in training."""
    inner_lr: float = 0.1
    """Inner step size; in a new task it is halved after the first step."""
    lr: float = 1e-3
    """Of Adam, the outer optimizer."""
    epochs: int = 5
    """Outer gradient steps on the same trajectories."""
    clip: float = 0.3
    """How far the ratio of probabilities may move before it gains nothing more."""


@dataclass(frozen=True)
class RL2Options(PolicyOptions):
    """RL²: a recurrent policy by PPO, whose memory of a trial is what adapts (Duan et al. 2016)."""

    env: Literal["bandit", "tabular-mdp"] = "bandit"
    """The distribution of tasks; its actions are choices."""
    tasks: int = 200
    """Trials of an outer step, each in a task of its own."""
    episodes: int = 1
    """Episodes of a trial."""
    hidden: int = 128
    """Size of the policy's state."""
    lr: float = 2e-3
    """Of Adam; it falls to zero over the budget."""


@dataclass(frozen=True)
class RLTrain:
    """Meta-train a policy into a run folder."""

    learner: OmitSubcommandPrefixes[
        Annotated[MAMLPolicyOptions, subcommand("maml")]
        | Annotated[ProMPOptions, subcommand("promp")]
        | Annotated[RL2Options, subcommand("rl2")]
        | Annotated[PretrainedPolicyOptions, subcommand("pretrained")]
    ]


@dataclass(frozen=True)
class RLResume:
    """Go on with an interrupted run, exactly where it was, or give a finished one more time."""

    run: Positional[Path]
    """Folder of the run."""
    minutes: float | None = None
    """New total budget in minutes. Given alone it replaces a budget of steps too; without either all is as before."""
    steps: int | None = None
    """New total budget in outer steps. Given alone it replaces a budget of minutes too."""


@dataclass(frozen=True)
class RLEval:
    """Judge the best policy of a run in tasks that it has never met: its return after each step, or episode of a trial."""

    run: Positional[Path]
    """Folder of the run."""
    tasks: int = 40
    """How many fixed test tasks."""
    trajectories: int = 40
    """Trajectories of each before each step, and after the last; a trial of RL² is one."""
    rates: tuple[float, ...] | None = None
    """The size of each gradient step; by default as in the run's validation, or 0.1 0.05 0.05 where it had none."""


@dataclass(frozen=True)
class RL:
    """Reinforcement learning: train, resume, eval."""

    command: OmitSubcommandPrefixes[
        Annotated[RLTrain, subcommand("train")]
        | Annotated[RLResume, subcommand("resume")]
        | Annotated[RLEval, subcommand("eval")]
    ]
