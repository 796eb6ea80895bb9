"""Gradients kept within bounds before each step of an optimizer."""

from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["clip_norm", "clip_value"]


def clip_norm(optimizer: Optimizer, most: float) -> None:
    """Scale the gradient down to a norm before every step: that of a long sequence may be out of all proportion.

    >>> import torch
    >>> weight = nn.Parameter(torch.zeros(2))
    >>> descent = torch.optim.SGD([weight], lr=1.0)
    >>> clip_norm(descent, 1.0)
    >>> (weight * torch.tensor([30.0, 40.0])).sum().backward()
    >>> descent.step()
    >>> weight.data
    tensor([-0.6000, -0.8000])
    """

    def clip(*_: object) -> None:
        nn.utils.clip_grad_norm_(_parameters(optimizer), most)

    optimizer.register_step_pre_hook(clip)


def clip_value(optimizer: Optimizer, most: float) -> None:
    """Clip each element of the gradient to a magnitude before every step.

    >>> import torch
    >>> weight = nn.Parameter(torch.zeros(2))
    >>> descent = torch.optim.SGD([weight], lr=1.0)
    >>> clip_value(descent, 2.0)
    >>> (weight * torch.tensor([1.0, -40.0])).sum().backward()
    >>> descent.step()
    >>> weight.data
    tensor([-1.,  2.])
    """

    def clip(*_: object) -> None:
        nn.utils.clip_grad_value_(_parameters(optimizer), most)

    optimizer.register_step_pre_hook(clip)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
