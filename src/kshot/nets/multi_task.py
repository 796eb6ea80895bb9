"""Nets for many known tasks at once: they read an input and the number of its task."""

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Numbered", "TaskConditioned", "TaskHeads"]

Numbered: TypeAlias = tuple[Tensor, Tensor]  # inputs (n, *features), and the number of the task of each (n,)


class TaskHeads(nn.Module):
    """A trunk that all tasks share, and a linear head for each (hard parameter sharing).

    Rich Caruana 1997, "Multitask learning".

    Args:
        trunk: maps ``(n, *features)`` to ``(n, d)``.
        features: d.
        outputs: of each head.
        tasks: how many.

    >>> net = TaskHeads(nn.Linear(3, 4), 4, 2, tasks=10)
    >>> net((torch.randn(5, 3), torch.tensor([0, 0, 9, 9, 9]))).shape
    torch.Size([5, 2])
    """

    def __init__(self, trunk: nn.Module, features: int, outputs: int, tasks: int) -> None:
        super().__init__()
        self.trunk = trunk
        bound = features**-0.5  # as torch's own linear layers start
        self.weight = nn.Parameter(torch.empty(tasks, outputs, features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(tasks, outputs))

    def forward(self, inputs: Numbered) -> Float[Tensor, "n outputs"]:
        """Return the outputs of each input's own head, ``(n, outputs)``."""
        x, task = inputs
        product: Tensor = (self.weight[task] @ self.trunk(x)[:, :, None])[:, :, 0]
        return product + self.bias[task]


class TaskConditioned(nn.Module):
    """One net for all tasks, which is told the task by some learned numbers beside each input.

    Args:
        net: maps ``(n, d + size)`` to ``(n, outputs)``.
        tasks: how many.
        size: how many numbers.

    >>> TaskConditioned(nn.Linear(3 + 2, 1), tasks=10, size=2)((torch.randn(5, 3), torch.arange(5))).shape
    torch.Size([5, 1])
    """

    def __init__(self, net: nn.Module, tasks: int, size: int) -> None:
        super().__init__()
        self.net = net
        self.codes = nn.Embedding(tasks, size)

    def forward(self, inputs: Numbered) -> Float[Tensor, "n outputs"]:
        """Return the outputs ``(n, outputs)``."""
        x, task = inputs
        outputs: Tensor = self.net(torch.cat([x, self.codes(task)], 1))
        return outputs
