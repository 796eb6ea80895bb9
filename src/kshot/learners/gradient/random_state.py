"""Random numbers drawn a second time, so that a computation done again is the same computation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

__all__ = ["RandomState", "random_state", "replayed"]

RandomState: TypeAlias = tuple[Tensor, list[Tensor]]  # of the CPU and of each GPU


def random_state() -> RandomState:
    """Return torch's present random state."""
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


@contextmanager
def replayed(state: RandomState) -> Iterator[None]:
    """Draw from an earlier random state, and go on from the present one afterwards.

    Raises:
        RuntimeError: something is drawn while a step is traced, which would draw it anew.
    """
    with torch.random.fork_rng():
        torch.set_rng_state(state[0])
        torch.cuda.set_rng_state_all(state[1])
        yield
        if get_proxy_mode() and not _equal(state, random_state()):
            raise RuntimeError("it draws the same random numbers twice")


def _equal(one: RandomState, other: RandomState) -> bool:
    return all(map(torch.equal, (one[0], *one[1]), (other[0], *other[1])))
