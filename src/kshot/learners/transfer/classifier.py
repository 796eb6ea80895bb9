"""Supervised pretraining: all training classes at once, told apart by one head that is thrown away afterwards."""

from typing import final

from torch import Tensor, nn

from kshot.core import Episode, Learner
from kshot.learners.transfer.wrapped import WrappedLearner

__all__ = ["Classifier"]


@final
class Classifier(WrappedLearner):
    r"""Train the encoder of a learner by classifying examples of all training classes with a head.

    .. math:: \min_{f, h} -\log p(y \mid h(f(x)))

    What it is shown in training are minibatches (``kshot.tasks.minibatches``): tasks without a support set, whose queries
    are labelled with one of all classes. What it predicts on tasks of few classes is what the learner predicts; so
    ``train`` chooses the best weights by validation on new classes. Train with ``tasks_per_step=1``, since a task is a
    minibatch already.

    Wei-Yu Chen et al. 2019, "A closer look at few-shot classification": Baseline, and with
    ``kshot.nets.features.CosineClassifier`` for a head Baseline++.

    Args:
        learner: how the encoder is to be used on a few examples: ``Prototypical(encoder)``, say. Its encoding alone is
            trained.
        head: maps embeddings ``(m, d)`` to one logit for each training class: a linear layer, say.

    >>> import numpy as np
    >>> from kshot.learners.transfer.linear_probe import LinearProbe
    >>> from kshot.tasks.glyphs import glyphs
    >>> from kshot.tasks.minibatches import Minibatches
    >>> encoder, minibatches = nn.Sequential(nn.Flatten(), nn.Linear(784, 8)), Minibatches(glyphs("val"), 16)
    >>> classifier = Classifier(LinearProbe(encoder), nn.Linear(8, minibatches.ways))
    >>> classifier.meta_loss(minibatches.draw(np.arange(1))).item() > 0
    True
    """

    def __init__(self, learner: Learner, head: nn.Module) -> None:
        super().__init__(learner)
        self.head = head

    def task_loss(self, task: Episode) -> Tensor:
        """Return the loss of the head on the queries."""
        return self.loss(self.head(task.query.x), task.query.y)
