"""What ways of training an encoder have in common: a learner that says what the encoder is for."""

from typing import Any

from torch import Tensor

from kshot.core import Batch, Inputs, Learner

__all__ = ["WrappedLearner"]

_FLAGS = ("transductive", "order_sensitive", "fixed_ways", "uses_unlabelled")


class WrappedLearner(Learner):
    """A learner that predicts as another does, and whose encoder is trained in a way of its own; abstract.

    Args:
        learner: encodes, adapts and predicts.
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__(learner.loss)
        self.learner = learner
        self.settings = dict(learner.settings)
        for flag in _FLAGS:
            setattr(self, flag, getattr(learner, flag))

    def encode(self, x: Inputs) -> Inputs:
        """Encode as the learner does."""
        return self.learner.encode(x)

    def adapt(self, support: Batch) -> Any:
        """Adapt as the learner does."""
        return self.learner.adapt(support)

    def predict(self, state: Any, x: Inputs) -> Tensor:
        """Predict as the learner does."""
        return self.learner.predict(state, x)
