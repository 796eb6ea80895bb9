"""None of these: a learner that may leave a query unclassified."""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch, Inputs, Learner
from kshot.losses import Loss, cross_entropy

__all__ = ["OpenSet", "open_set_cross_entropy"]

_FLAGS = ("transductive", "order_sensitive", "fixed_ways", "uses_unlabelled", "meta_trained")


def _with_none(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Append 'none of these' as a class, whose logit is zero."""
    none = 1 - y.sum(-1, keepdim=True)
    return torch.cat([logits, torch.zeros_like(none)], -1), torch.cat([y, none], -1)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(*_with_none(logits, y))


def _accuracy(logits: Tensor, y: Tensor) -> Tensor:
    return cross_entropy.metric(*_with_none(logits, y))


open_set_cross_entropy = Loss(_cross_entropy, _accuracy, "accuracy, none of these included", higher_is_better=True)


@final
class OpenSet(Learner):
    r"""Let a learner answer 'none of these', by a logit that a class has to exceed.

    .. math::
        p(k \mid x) = \frac{e^{s_k(x) - t}}{1 + \sum_j e^{s_j(x) - t}}, \qquad
        p(\text{none} \mid x) = 1 - \sum_k p(k \mid x)

    With one class it answers whether a query belongs to it. Among queries an all-zero row of y means none of the classes;
    the threshold t is learned from tasks that have such queries, with everything else of the learner, or set.

    Args:
        learner: whose predictions are logits.
        threshold: t at the start; a squared distance of ``-t`` for prototypes.

    >>> from kshot.core import one_hot
    >>> from kshot.learners.metric import Prototypical
    >>> learner = OpenSet(Prototypical(nn.Identity()), threshold=-1.0)
    >>> cat = learner.adapt(Batch(torch.tensor([[0.0], [0.2]]), one_hot([0, 0], 1)))
    >>> learner.predict(cat, torch.tensor([[0.3], [9.0]])) > 0
    tensor([[ True],
            [False]])
    """

    def __init__(self, learner: Learner, threshold: float = 0.0) -> None:
        super().__init__(open_set_cross_entropy)
        self.learner = learner
        self.threshold = nn.Parameter(torch.tensor(threshold))
        self.settings = dict(learner.settings)
        for flag in _FLAGS:
            setattr(self, flag, getattr(learner, flag))

    @property
    def exact_gradient(self) -> bool:  # type: ignore[override]
        """Whether the learner's is, which may depend on how far training is."""
        return self.learner.exact_gradient

    def default_optimizer(self) -> torch.optim.Optimizer:
        """Return the learner's optimizer, for the threshold too."""
        optimizer = self.learner.default_optimizer()
        optimizer.add_param_group({"params": [self.threshold]})
        return optimizer

    def encode(self, x: Inputs) -> Inputs:
        """Encode as the learner does."""
        return self.learner.encode(x)

    def adapt(self, support: Batch) -> Any:
        """Adapt as the learner does."""
        return self.learner.adapt(support)

    def predict(self, state: Any, x: Inputs) -> Float[Tensor, "q ways"]:
        """Return the logits less the threshold, ``(q, ways)``: where all are below zero, it is none of these."""
        logits: Tensor = self.learner.predict(state, x)
        return logits - self.threshold
