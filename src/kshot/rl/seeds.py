"""Generators that depend on a seed and a position alone, so that a resumed run needs no state of theirs."""

import numpy as np
import torch

from kshot.tasks.keys import random_keys

__all__ = ["generator_of"]


def generator_of(seed: int, position: int) -> torch.Generator:
    """Return a generator for one position of a stream, such as a training step.

    >>> bool((torch.rand(3, generator=generator_of(0, 7)) == torch.rand(3, generator=generator_of(0, 7))).all())
    True
    """
    key = random_keys(seed, 0, np.array([position]), 1)[0, 0] >> np.uint64(1)
    return torch.Generator().manual_seed(int(key))
