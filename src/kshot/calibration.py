"""Whether a learner is right as often as it is confident."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["confidence_and_correctness", "expected_calibration_error"]


def confidence_and_correctness(logits: Float[Tensor, "n ways"], y: Float[Tensor, "n ways"]) -> Float[Tensor, "2 m"]:
    """Return the probability of each answer, and one where it is right, of the labelled examples alone.

    >>> confidence_and_correctness(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    tensor([[0.5000],
            [1.0000]])
    """
    confidence, answer = logits.softmax(-1).max(-1)
    right = (answer == y.argmax(-1)).to(confidence.dtype)
    return torch.stack([confidence, right])[:, y.sum(-1) > 0]


def expected_calibration_error(
    confidence: Float[Tensor, " n"], correctness: Float[Tensor, " n"], bins: int = 15
) -> float:
    r"""Return how far accuracy and mean confidence lie apart, on average over bins of equal width.

    .. math:: \mathrm{ECE} = \sum_{m=1}^{M} \frac{|B_m|}{n} \left|\mathrm{acc}(B_m) - \mathrm{conf}(B_m)\right|

    Bin m holds the predictions with a confidence in ((m - 1) / M, m / M]; NaN where there is no prediction.

    Chuan Guo, Geoff Pleiss, Yu Sun, Kilian Weinberger 2017, "On calibration of modern neural networks".

    Args:
        confidence: ``(n,)`` the probability that each prediction gave to its answer.
        correctness: ``(n,)`` one where the answer is right, else zero.
        bins: M.

    >>> sure = torch.full((4,), 0.9)
    >>> round(expected_calibration_error(sure, torch.tensor([1.0, 1.0, 0.0, 0.0])), 4)
    0.4
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence.device)[1:-1]
    confidence, correctness = confidence.double(), correctness.double()
    gaps = confidence.new_zeros(bins).index_add(0, torch.bucketize(confidence, edges), correctness - confidence)
    return (gaps.abs().sum() / len(confidence)).item()
