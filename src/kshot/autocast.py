"""The state of autocast, kept for another time or another thread."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeAlias

import torch

__all__ = ["Autocast", "autocast_as_now"]

Autocast: TypeAlias = Callable[[], AbstractContextManager[Any]]


def autocast_as_now(device: str) -> Autocast:
    """Return what puts autocast into the state of now: a way back or another thread may find it in another state.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     then = autocast_as_now("cpu")
    >>> with then():
    ...     torch.is_autocast_enabled("cpu")
    True
    """
    if not torch.amp.is_autocast_available(device):
        return nullcontext
    return partial(torch.autocast, device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
