"""RL²: a recurrent policy whose memory is the learner."""

from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import torch

from kshot.evaluation import Evaluation
from kshot.rl.environments.base import Environment, Tasks
from kshot.rl.learner import PolicyLearner
from kshot.rl.ppo import PPO
from kshot.rl.recurrent_policy import RecurrentPolicy
from kshot.rl.seeds import generator_of
from kshot.rl.trials import Trials, collect_trials

__all__ = ["RL2", "RL2Outcome", "TrialSetting"]


@dataclass(frozen=True)
class TrialSetting:
    """What a training step collects.

    Args:
        tasks: the meta-batch size; one trial in each.
        episodes: of a trial, one after the other in the same task.
    """

    tasks: int = 1000
    episodes: int = 1

    def __post_init__(self) -> None:
        if self.tasks < 1 or self.episodes < 1:
            raise ValueError(f"expected tasks >= 1 and episodes >= 1; found {self.tasks} and {self.episodes}.")


class RL2Outcome(NamedTuple):
    """The loss of the last pass of PPO."""

    loss: float

    def metrics(self) -> dict[str, float]:
        """Return its numbers by name."""
        return self._asdict()


@final
class RL2(PolicyLearner[TrialSetting]):
    """Meta-train a recurrent policy on whole trials; in a new task it adapts by what it remembers, without a gradient.

    Yan Duan et al. 2016, "RL²: Fast reinforcement learning via slow reinforcement learning"; Jane Wang et al. 2016,
    "Learning to reinforcement learn". The learning rate falls to zero over the budget, in a line.

    Args:
        ppo: the policy, and how trials improve it.

    >>> from kshot.rl.environments.bandit import Bandit
    >>> from kshot.rl.training import train_policy
    >>> policy = RecurrentPolicy(features=1, actions=2, hidden=8)
    >>> learner = RL2(PPO(policy, torch.optim.Adam(policy.parameters(), 1e-2)))
    >>> train_policy(learner, Bandit(arms=2, pulls=3), TrialSetting(tasks=20), steps=2).steps
    2
    """

    policy: RecurrentPolicy

    def __init__(self, ppo: PPO) -> None:
        self.ppo, self.policy = ppo, ppo.policy
        self._rates = [group["lr"] for group in ppo.optimizer.param_groups]

    @property
    def default_setting(self) -> TrialSetting:
        """A thousand trials of one episode."""
        return TrialSetting()

    def take_step(
        self, environment: Environment, tasks: Tasks, setting: TrialSetting, generator: torch.Generator
    ) -> tuple[RL2Outcome, list[float]]:
        """Collect a trial in each task and learn from them; return the loss, and the mean return of each episode."""
        trials = collect_trials(environment, self.policy, tasks, setting.episodes, generator)
        loss = self.ppo.update(trials, generator)
        return RL2Outcome(loss), _by_episode(trials, setting.episodes).mean(1).tolist()

    def judge(self, environment: Environment, setting: TrialSetting, tasks: int, seed: int) -> list[Evaluation]:
        """Return the mean return of each episode of a trial."""
        drawn = environment.draw_tasks(seed, np.arange(tasks))
        trials = collect_trials(environment, self.policy, drawn, setting.episodes, generator_of(seed, 0))
        stamp = {**environment.stamp, "task seed": str(seed)}
        returns = _by_episode(trials, setting.episodes).double()
        return [
            Evaluation("return", True, one, {**stamp, "episode": f"{number + 1} of {setting.episodes}"})
            for number, one in enumerate(returns)
        ]

    def score(self, results: list[Evaluation]) -> float:
        """Return the mean over all episodes: what a trial earns is what is learned."""
        return sum(result.mean for result in results) / len(results)

    def at_progress(self, progress: float) -> None:
        """Lower the learning rate."""
        for group, lr in zip(self.ppo.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = lr * (1 - progress)

    def state(self) -> dict[str, Any]:
        """Return weights and the state of the optimizer."""
        return {**super().state(), "optimizer": self.ppo.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from weights and the state of the optimizer."""
        super().restore(state)
        self.ppo.optimizer.load_state_dict(state["optimizer"])


def _by_episode(trials: Trials, episodes: int) -> torch.Tensor:
    """Return what each episode paid in each task, ``(episodes, tasks)``."""
    return trials.rewards.view(episodes, -1, trials.rewards.shape[1]).sum(1)
