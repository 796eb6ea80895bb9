"""Linear probing: the encoder stays as it is, and the support set is fitted by a linear model on its embeddings."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch
from kshot.learners.encoded import EncodedLearner
from kshot.learners.transfer.linear_fit import logistic_weights, ridge_weights
from kshot.losses import Loss, cross_entropy

__all__ = ["LinearProbe"]


@final
class LinearProbe(EncodedLearner):
    r"""Fit logistic regression to embedded support examples, or ridge regression where the loss has no labels.

    .. math::
        \min_{W, b} \sum_i L(W^\top f(x_i) + b, y_i) + \frac\lambda2 \lVert W \rVert^2

    L is the cross entropy, or half the squared error. Its weights are scikit-learn's ``LogisticRegression(C=1 /
    penalty)`` for three classes or more (with two that has one row of weights, and ``C=2 / penalty`` gives the same
    probabilities) and ``Ridge(alpha=penalty)``. On an encoder that was trained on other classes it is the usual baseline of
    transfer learning. No gradient leads through it: to meta-train an encoder for a linear model take ``Ridge`` or ``SVM``.

    Guillaume Alain, Yoshua Bengio 2017, "Understanding intermediate layers using linear classifier probes"; Yonglong
    Tian et al. 2020, "Rethinking few-shot image classification: a good embedding is all you need?".

    Args:
        encoder: maps ``(m, *features)`` to embeddings ``(m, d)``.
        loss: what the query predictions are judged by.
        penalty: lambda, above zero.
        steps: of the solver of logistic regression; ridge regression has a closed form.

    Raises:
        ValueError: the penalty is not positive, or there is no step.

    >>> from kshot.core import one_hot
    >>> learner = LinearProbe(nn.Identity())
    >>> weights = learner.adapt(Batch(torch.tensor([[0.0], [1.0], [4.0]]), one_hot([0, 0, 1], 2)))
    >>> learner.predict(weights, torch.tensor([[0.5], [3.0]])).argmax(1)
    tensor([0, 1])
    """

    meta_trained = False
    exact_gradient = False

    def __init__(
        self, encoder: nn.Module, loss: Loss = cross_entropy, *, penalty: float = 1.0, steps: int = 40
    ) -> None:
        super().__init__(encoder, loss)
        if penalty <= 0 or steps < 1:
            raise ValueError(
                f"LinearProbe expects a penalty above zero and at least one step; found {penalty} and {steps}. Without a "
                "penalty a few examples that a plane parts have no best weights."
            )
        self.penalty, self.steps = penalty, steps

    @torch.no_grad()
    def adapt(self, support: Batch) -> Float[Tensor, "features ways"]:
        """Return the weights, those of the bias last, ``(d + 1, ways)``."""
        if self.loss.labels:
            return logistic_weights(*support, self.penalty, self.steps)
        return ridge_weights(*support, self.penalty)

    def predict(self, state: Float[Tensor, "features ways"], x: Float[Tensor, "q d"]) -> Float[Tensor, "q ways"]:
        """Return logits or targets, ``(q, ways)``."""
        return x @ state[:-1] + state[-1]
