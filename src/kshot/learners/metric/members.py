"""States that hold the embedded support set itself, for learners that compare with each of its members."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kshot.core import Batch

__all__ = ["class_logits", "joined"]


def joined(support: Batch, more: Batch) -> Batch:
    """Return a support set with more examples, where y may have more columns for new classes."""
    y = F.pad(support.y, (0, more.y.shape[1] - support.y.shape[1]))
    return Batch(torch.cat([support.x, more.x]), torch.cat([y, more.y]))


def class_logits(
    scores: Float[Tensor, "q n"], y: Float[Tensor, "n ways"], over: Callable[[Tensor, int], Tensor]
) -> Float[Tensor, "q ways"]:
    """Reduce the scores of a class's members, by ``torch.logsumexp`` or ``torch.amax``, to one for the class.

    >>> class_logits(torch.tensor([[1.0, 5.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.amax)
    tensor([[1., 5.]])
    """
    # Finite, since minus infinity would make a loss of a class without members NaN.
    least = torch.finfo(scores.dtype).min / 2
    members = torch.zeros_like(y).masked_fill(y == 0, least)
    # One more example, of no class, so that there is one in a support set without any.
    scores, members = F.pad(scores, (0, 1)), F.pad(members, (0, 0, 0, 1), value=least)
    return over(scores[:, :, None] + members, 1)
