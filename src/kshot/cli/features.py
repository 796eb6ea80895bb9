"""How many features a net makes of a picture."""

import torch
from torch import nn

from kshot.modes import in_eval_mode

__all__ = ["features_of"]


def features_of(net: nn.Module, picture: torch.Size) -> int:
    """Return the features of a picture of this shape, and leave the net as it was."""
    with torch.no_grad(), in_eval_mode(net):
        return int(net(torch.zeros(2, *picture)).shape[1])  # two, since one has no statistics of a batch
