"""What a prediction is judged by: a loss to train on, and the metric that people read."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "LETTERS",
    "SHARES",
    "Loss",
    "bit_errors",
    "bits",
    "cross_entropy",
    "gaussian_log_likelihood",
    "mean_squared_error",
    "strings",
]

LETTERS = 5  # of the alphabet of ``strings``
# Metrics between 0 and 1, which people read in percent.
SHARES = frozenset({"accuracy", "accuracy, none of these included", "bit error"})


@dataclass(frozen=True)
class Loss:
    """A loss of one task with the metric that goes with it.

    Both take a prediction ``(q, ...)`` and targets ``y`` of ``(q, ways)`` or ``(q, d)``, and return a scalar tensor.
    Where y are ``labels``, an all-zero row is an unlabelled example. ``softmax`` says that the softmax of a prediction is
    meant as probabilities of the labels; ``gaussian``, that it holds the means of the targets and then the logarithms of
    their deviations; ``string_labels``, that a label is a string of letters, as ``kshot.tasks.strings`` makes them.

    >>> cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])).item() < 0.13
    True
    >>> cross_entropy.metric_name, mean_squared_error.metric_name
    ('accuracy', 'MSE')
    """

    function: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor, Tensor], Tensor]
    metric_name: str
    higher_is_better: bool
    labels: bool = True
    softmax: bool = False
    gaussian: bool = False
    string_labels: bool = False

    def __call__(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Return the loss of one task, a scalar."""
        return self.function(prediction, y)

    def weight(self, y: Tensor) -> Tensor:
        """Return how much each example weighs, ``(n,)``: one, or nothing where it is unlabelled."""
        return y.sum(-1).clamp_max(1) if self.labels else torch.ones_like(y[:, 0])


def _labelled_mean(values: Tensor, y: Tensor) -> Tensor:
    # An all-zero row is unlabelled: it weighs nothing, in the sum and in the count it is divided by.
    labelled = y.sum(-1)
    return (values * labelled).sum() / labelled.sum().clamp_min(1)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    _check_shapes(logits, y, "class")
    return -(F.log_softmax(logits, -1) * y).sum() / y.sum().clamp_min(1)


def _accuracy(logits: Tensor, y: Tensor) -> Tensor:
    _check_shapes(logits, y, "class")
    return _labelled_mean(_right(logits, y).to(y.dtype), y)


def _right(logits: Tensor, y: Tensor) -> Tensor:
    # The argmax of NaN would be a class like any other.
    return (logits.argmax(-1) == y.argmax(-1)) & logits.amax(-1).isfinite()


def _string_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    _check_shapes(logits, y, "letter")
    return _cross_entropy(_characters(logits), _characters(y))


def _string_accuracy(logits: Tensor, y: Tensor) -> Tensor:
    _check_shapes(logits, y, "letter")
    right = _right(_characters(logits), _characters(y)).all(-1)
    return _labelled_mean(right.to(y.dtype), y[:, :LETTERS])


def _characters(rows: Tensor) -> Tensor:
    return rows.reshape(*rows.shape[:-1], -1, LETTERS)


def _check_shapes(prediction: Tensor, y: Tensor, column: str = "target") -> None:
    # They would broadcast against each other, and a learner built for one target would train on many without a word.
    if prediction.shape != y.shape:
        raise ValueError(
            f"predictions must have the shape of the targets, {tuple(y.shape)}; found {tuple(prediction.shape)}. Give the "
            f"net one output a {column}."
        )


def _mean_squared_error(prediction: Tensor, y: Tensor) -> Tensor:
    _check_shapes(prediction, y)
    return (prediction - y).square().mean()


def _binary_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    _check_shapes(logits, y)
    return (F.softplus(logits) - y * logits).mean()


def _bits(logits: Tensor, y: Tensor) -> Tensor:
    _check_shapes(logits, y)
    return (F.softplus(logits) - y * logits).sum() / math.log(2)


def _bit_error(logits: Tensor, y: Tensor) -> Tensor:
    _check_shapes(logits, y)
    return ((logits > 0) != (y > 0.5)).to(y.dtype).mean()


cross_entropy = Loss(_cross_entropy, _accuracy, "accuracy", higher_is_better=True, softmax=True)
mean_squared_error = Loss(_mean_squared_error, _mean_squared_error, "MSE", higher_is_better=False, labels=False)
# Strings of letters out of five: right where every character is.
strings = Loss(_string_cross_entropy, _string_accuracy, "accuracy", higher_is_better=True, string_labels=True)


def _gaussian_log_likelihood(prediction: Tensor, y: Tensor) -> Tensor:
    if prediction.shape[-1] != 2 * y.shape[-1]:
        raise ValueError(
            f"gaussian_log_likelihood expects predictions of {2 * y.shape[-1]} columns, the means of {y.shape[-1]} targets "
            f"and the logarithms of their deviations; found {prediction.shape[-1]}. Give the net two outputs a target."
        )
    mean, log_deviation = prediction.chunk(2, -1)
    _check_shapes(mean, y)
    standardised = (y - mean) * (-log_deviation).exp()
    return -(standardised.square() / 2 + log_deviation).mean() - math.log(2 * math.pi) / 2


def _gaussian_surprise(prediction: Tensor, y: Tensor) -> Tensor:
    return -_gaussian_log_likelihood(prediction, y)


# Predictions are (q, 2 d): d means, then the logarithms of d deviations. Of the logarithm any real number is meant, so that
# every net with 2 d outputs can be trained on it, that of MAML too; of a deviation the loss of one below zero would be NaN.
# In nats for each point and target.
gaussian_log_likelihood = Loss(
    _gaussian_surprise, _gaussian_log_likelihood, "log-likelihood", higher_is_better=True, labels=False, gaussian=True
)
# For targets of zeros and ones, each feature predicted by a logit of its own: what it costs to write them all down by the
# predicted probabilities, and how many would be wrong.
bits = Loss(_binary_cross_entropy, _bits, "bits per sequence", higher_is_better=False, labels=False)
bit_errors = Loss(_binary_cross_entropy, _bit_error, "bit error", higher_is_better=False, labels=False)
