"""Random numbers drawn a second time, so that a computation done again is the same computation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["RandomState", "random_state", "replayed"]

RandomState: TypeAlias = tuple[Tensor, list[Tensor]]  # of the CPU and of each GPU


def random_state() -> RandomState:
    """Return torch's present random state."""
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


@contextmanager
def replayed(state: RandomState) -> Iterator[None]:
    """Draw from an earlier random state, and go on from the present one afterwards."""
    with torch.random.fork_rng():
        torch.set_rng_state(state[0])
        torch.cuda.set_rng_state_all(state[1])
        yield
