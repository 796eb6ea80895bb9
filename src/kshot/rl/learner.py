"""What training asks of whatever meta-learns a policy."""

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from kshot.evaluation import Evaluation
from kshot.rl.environments.base import Environment, Tasks

__all__ = ["Outcome", "PolicyLearner", "StepSetting"]


@runtime_checkable
class StepSetting(Protocol):
    """What a training step collects: the loop itself asks for the number of tasks alone."""

    @property
    def tasks(self) -> int:
        """The meta-batch size."""


S = TypeVar("S", bound=StepSetting)


@runtime_checkable
class Outcome(Protocol):
    """What an outer step came to."""

    def metrics(self) -> dict[str, float]:
        """Return its numbers by name, for the record of a run."""


class PolicyLearner(ABC, Generic[S]):
    """A policy, and how a step of meta-training in some tasks improves it."""

    policy: nn.Module

    @property
    @abstractmethod
    def default_setting(self) -> S:
        """What a step collects where nothing else is asked for."""

    @abstractmethod
    def take_step(
        self, environment: Environment, tasks: Tasks, setting: S, generator: torch.Generator
    ) -> tuple[Outcome, list[float]]:
        """Collect and learn; return what came of it and the mean return at each stage, the last one last.

        Raises:
            FloatingPointError: something is not finite; the policy is as it was before the step that failed.
            RuntimeError: the simulator failed.
        """

    @abstractmethod
    def judge(self, environment: Environment, setting: S, tasks: int, seed: int) -> list[Evaluation]:
        """Return how good the policy is in so many fixed tasks, stage by stage of what it learns in them."""

    @abstractmethod
    def score(self, results: list[Evaluation]) -> float:
        """Return what chooses the best weights, of what ``judge`` found; more is better."""

    def at_progress(self, progress: float) -> None:
        """Change what training changes over its budget; ``progress`` is the share that is spent, 0 to 1."""

    def state(self) -> dict[str, Any]:
        """Return all that goes on changing, for a checkpoint."""
        return {"learner": self.policy.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self.policy.load_state_dict(state["learner"])
