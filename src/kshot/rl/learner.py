"""What training asks of whatever meta-learns a policy."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from kshot.rl.adaptation import PolicyGradientSteps
from kshot.rl.policies import Policy
from kshot.rl.trajectories import Samples

__all__ = ["Outcome", "PolicyLearner"]


@runtime_checkable
class Outcome(Protocol):
    """What an outer step came to."""

    def metrics(self) -> dict[str, float]:
        """Return its numbers by name, for the record of a run."""


class PolicyLearner(ABC):
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

    def state(self) -> dict[str, Any]:
        """Return all that goes on changing, for a checkpoint."""
        return {"learner": self.policy.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self.policy.load_state_dict(state["learner"])
