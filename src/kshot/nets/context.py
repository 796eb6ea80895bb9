"""Nets that are told of the task by a few numbers, which alone adapt (CAVIA)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["FiLM", "WithContext"]


class WithContext(nn.Module):
    """A net that has a few numbers of the task beside each input.

    Luisa Zintgraf et al. 2019, "Fast context adaptation via meta-learning" (CAVIA), which is
    ``MAML(WithContext(MLP(1 + 5, 40, 40, 1), 5), 1.0, adapts=lambda name: name == "context", loss=mean_squared_error)`` for
    regression. They are zero before a task is known, and not meta-learned.

    Args:
        net: maps ``(n, d + size)`` to ``(n, outputs)``.
        size: how many numbers.

    >>> WithContext(nn.Linear(1 + 5, 2), 5)(torch.zeros(7, 1)).shape
    torch.Size([7, 2])
    """

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.net = net
        self.context = nn.Parameter(torch.zeros(size), requires_grad=False)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n outputs"]:
        """Map ``(n, d)`` to ``(n, outputs)``."""
        outputs: Tensor = self.net(torch.cat([x, self.context.expand(len(x), -1)], 1))
        return outputs


class FiLM(nn.Module):
    r"""Stretch and shift each channel by what a few numbers of the task say: :math:`x (1 + \gamma(c)) + \beta(c)`.

    Ethan Perez et al. 2018, "FiLM: visual reasoning with a general conditioning layer"; CAVIA has it behind the third
    convolution of a picture net, with 100 numbers, and ``adapts=lambda name: name.endswith("context")``.

    Args:
        channels: size of axis 1 of the input ``(n, channels, *space)``.
        size: how many numbers.

    >>> FiLM(8, 100)(torch.zeros(2, 8, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.zeros(size), requires_grad=False)
        self.linear = nn.Linear(size, 2 * channels)

    def forward(self, x: Float[Tensor, "n channels *space"]) -> Float[Tensor, "n channels *space"]:
        """Map ``(n, channels, *space)`` to the same shape."""
        stretch, shift = self.linear(self.context).view(2, -1, *[1] * (x.dim() - 2))
        y: Tensor = x * (1 + stretch) + shift
        return y
