"""Learners adapt to the examples of a fit."""

from typing import Any

import torch

from kshot.core import Batch, Learner

__all__ = ["adapted"]


@torch.no_grad()
def adapted(learner: Learner, support: Batch) -> Any:
    """Adapt a learner to the examples of a fit.

    Raises:
        ValueError: the number of classes is built into the learner, and these are of another number.
    """
    try:
        return learner.adapt(support)
    except (RuntimeError, ValueError) as error:
        if not learner.fixed_ways:
            raise
        raise ValueError(
            f"{type(learner).__name__} was trained for a number of classes that cannot change; found {support.y.shape[1]}. "
            "Bring as many as it was trained with, or take a learner of any number, such as Prototypical."
        ) from error
