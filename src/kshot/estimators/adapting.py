"""Learners adapt to the examples of a fit."""

from typing import Any

import torch

from kshot.batching import first_line
from kshot.core import Batch, Learner

__all__ = ["adapted"]


@torch.no_grad()
def adapted(learner: Learner, support: Batch) -> Any:
    """Adapt a learner to the examples of a fit.

    Raises:
        ValueError: the number of classes is built into the learner, which cannot adapt to these.
    """
    try:
        return learner.adapt(support)
    except (RuntimeError, ValueError) as error:
        if not learner.fixed_ways:
            raise
        raise ValueError(
            f"{type(learner).__name__} was trained for a number of classes that cannot change, and cannot adapt to these "
            f"{support.y.shape[1]} ({first_line(error)}). Bring as many, and the same features, or take a learner of any "
            "number of classes, such as Prototypical."
        ) from error
