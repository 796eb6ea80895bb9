"""The modes that a module runs in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["in_eval_mode", "modes"]


def modes(module: nn.Module, device: torch.device) -> tuple[object, ...]:
    """Return what decides how a module runs beside its inputs: which of its parts train, and autocast.

    >>> modes(nn.Linear(1, 1), torch.device("cpu"))
    ((True,), False, torch.bfloat16)
    """
    training = tuple(part.training for part in module.modules())
    return training, torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode, and every part of it back into the mode that it was found in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
