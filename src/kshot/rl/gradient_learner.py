"""Policies that adapt by gradient steps, in training: collect, adapt, collect again, and take an outer step."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kshot.evaluation import Evaluation
from kshot.rl.adaptation import PolicyGradientSteps
from kshot.rl.advantages import to_samples
from kshot.rl.collect import collect
from kshot.rl.environments.base import Environment, Tasks
from kshot.rl.evaluation import adaptation_curve
from kshot.rl.learner import Outcome, PolicyLearner
from kshot.rl.policies import Policy
from kshot.rl.trajectories import Samples

__all__ = ["GradientPolicyLearner", "Setting"]


@dataclass(frozen=True)
class Setting:
    """What a training step collects.

    Args:
        tasks: the meta-batch size.
        trajectories: of each task before each inner step, and after the last.
        steps: inner steps; without any it is ordinary TRPO on all tasks together, which is how a policy is pretrained.
        discount: gamma.
        decay: lambda of the advantage estimates.
        test_rates: step sizes of the adaptation that is validated.
    """

    tasks: int = 20
    trajectories: int = 20
    steps: int = 1
    discount: float = 0.99
    decay: float = 1.0
    test_rates: Sequence[float] = (0.1, 0.05, 0.05)

    def __post_init__(self) -> None:
        if self.tasks < 1 or self.trajectories < 1 or self.steps < 0:
            found = f"{self.tasks}, {self.trajectories} and {self.steps}"
            raise ValueError(f"expected tasks >= 1, trajectories >= 1 and steps >= 0; found {found}.")


class GradientPolicyLearner(PolicyLearner[Setting]):
    """A policy, how it adapts to a task, and how an outer step improves what it adapts from."""

    policy: Policy
    inner: PolicyGradientSteps

    @abstractmethod
    def update(self, path: Sequence[Samples], after: Samples) -> Outcome:
        """Take one outer step.

        Args:
            path: for each inner step the samples of all tasks, which the weights before it collected. Tensors have a leading
                task axis.
            after: the samples of all tasks, which the adapted weights collected.

        Raises:
            FloatingPointError: something is not finite; the policy is as it was before the step that failed.
        """

    @property
    def default_setting(self) -> Setting:
        """One inner step."""
        return Setting()

    def take_step(
        self, environment: Environment, tasks: Tasks, setting: Setting, generator: torch.Generator
    ) -> tuple[Outcome, list[float]]:
        """Take an outer step; return it, and the mean return before each inner step and after the last."""
        weights, path, returns = self.inner.start(setting.tasks), list[Samples](), []
        for number in range(setting.steps + 1):
            found = collect(environment, self.policy, weights, tasks, setting.trajectories, generator)
            path.append(to_samples(found, setting.discount, setting.decay))
            returns.append(found.returns().mean().item())
            if number < setting.steps:
                weights = self.inner(weights, path[-1])
        return self.update(path[:-1], path[-1]), returns

    def judge(self, environment: Environment, setting: Setting, tasks: int, seed: int) -> list[Evaluation]:
        """Return the mean return before adaptation, and after each step of ``test_rates``."""
        return adaptation_curve(
            self.inner,
            environment,
            tasks=tasks,
            rates=setting.test_rates,
            trajectories=setting.trajectories,
            discount=setting.discount,
            decay=setting.decay,
            seed=seed,
        )

    def score(self, results: list[Evaluation]) -> float:
        """Return the mean over the steps of adaptation, or the return without any where there is none."""
        judged = results[1:] or results
        return sum(result.mean for result in judged) / len(judged)
