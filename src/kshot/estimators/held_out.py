"""Cross-validation inside a support set: what a learner answers for examples that it has not seen."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

from kshot.core import Batch, Learner
from kshot.estimators.adapting import adapted

__all__ = ["fitted_scale", "folds_of", "held_out_predictions", "share_with_interval"]


def folds_of(labels: Int[Tensor, " n"], folds: int = 5) -> Int[Tensor, " n"]:
    """Deal the examples of each class to folds in turn; -1 for the only example of a class, which is never held out.

    Every class begins with the first fold, so that each fold holds as many of one class as of another, like an episode. If
    the rest lacked examples of the class that is asked for, a learner of how frequent classes are would answer the others.

    >>> folds_of(torch.tensor([0, 0, 1, 0]), folds=2).tolist()
    [0, 1, -1, 0]
    """
    fold = torch.full_like(labels, -1)
    for own in (rows for c in torch.unique(labels) if len(rows := (labels == c).nonzero().flatten()) > 1):
        fold[own] = torch.arange(len(own), device=own.device) % folds
    return fold


def share_with_interval(right: int, n: int) -> tuple[float, float]:
    """Return the share of right answers and the half-width of its 95 % interval.

    Alan Agresti, Brent Coull 1998, "Approximate is better than 'exact' for interval estimation of binomial proportions":
    unlike the usual interval it does not vanish where all are right.

    >>> share, half_width = share_with_interval(4, 4)
    >>> share, round(half_width, 2)
    (1.0, 0.3)
    """
    near = (right + 2) / (n + 4)
    return right / n, 1.96 * math.sqrt(near * (1 - near) / (n + 4))


@torch.no_grad()
def held_out_predictions(
    learner: Learner, x: Tensor, y: Float[Tensor, "n columns"], fold: Int[Tensor, " n"]
) -> Float[Tensor, "m columns"]:
    """Return predictions for the examples with a fold, in their order, each by the learner adapted to the other folds."""
    held, predictions = fold >= 0, y.new_zeros(y.shape)
    for number in torch.unique(fold[held]):
        apart = fold == number
        state = adapted(learner, Batch(x[~apart], y[~apart]))
        predictions[apart] = learner.predict(state, x[apart]).to(y.dtype)
    return predictions[held]


def fitted_scale(logits: Float[Tensor, "m ways"], labels: Int[Tensor, " m"]) -> float:
    r"""Return the factor of logits under which held-out answers are most probable; one where there is none.

    .. math:: \min_a -\sum_i \sum_k t_{ik} \log \mathrm{softmax}(a\, s_i)_k

    The targets t keep 1 / (m + 2) for the other classes, or the factor would be infinite where all answers are right.

    Chuan Guo et al. 2017, "On calibration of modern neural networks"; the targets after John Platt 1999, "Probabilistic
    outputs for support vector machines".
    """
    m, ways = logits.shape
    if not m or ways < 2:
        return 1.0
    targets = F.one_hot(labels, ways) * (1 - 1 / (m + 2)) + (1 - F.one_hot(labels, ways)) / ((m + 2) * (ways - 1))

    def surprise(log_factor: float) -> float:
        return -(targets * (float(np.exp(log_factor)) * logits).log_softmax(-1)).sum().item()

    return float(np.exp(minimize_scalar(surprise, bounds=(-8, 8), method="bounded").x))
