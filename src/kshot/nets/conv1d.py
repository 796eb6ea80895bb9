"""A small convolutional net for signals of any length."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Conv1d"]


class Conv1d(nn.Module):
    """Residual blocks of convolutions of three widths, and the mean over time: signals of any length.

    The net of Zhiguang Wang, Weizhong Yan, Tim Oates 2017, "Time series classification from scratch with deep neural
    networks: a strong baseline", smaller; each block but the first halves the signal.

    Args:
        channels: of the signals.
        widths: filters of the blocks.
        norm: makes the normalisation of a layer from its number of filters; see ``kshot.nets.norm``.

    >>> import torch
    >>> net = Conv1d()
    >>> net(torch.zeros(2, 1, 131)).shape, net(torch.zeros(2, 1, 512)).shape
    (torch.Size([2, 128]), torch.Size([2, 128]))
    """

    def __init__(
        self,
        channels: int = 1,
        widths: tuple[int, ...] = (64, 128, 128),
        norm: Callable[[int], nn.Module] = nn.BatchNorm1d,
    ) -> None:
        super().__init__()
        pairs = zip((channels, *widths[:-1]), widths, strict=True)
        self.blocks = nn.Sequential(*(_Block(inputs, outputs, norm) for inputs, outputs in pairs))

    def forward(self, x: Float[Tensor, "n channels time"]) -> Float[Tensor, "n features"]:
        """Map signals ``(n, channels, time)`` to ``(n, features)``."""
        for number, block in enumerate(self.blocks):
            # Ceiling, so that even a signal of one value keeps one.
            x = block(F.max_pool1d(x, 2, ceil_mode=True) if number else x)
        return x.mean(2)


class _Block(nn.Module):
    """Three convolutions beside a short cut."""

    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()

        def convolution(width: int, kernel: int) -> list[nn.Module]:
            return [nn.Conv1d(width, outputs, kernel, padding=kernel // 2, bias=False), norm(outputs)]

        self.body = nn.Sequential(
            *convolution(inputs, 7), nn.ReLU(), *convolution(outputs, 5), nn.ReLU(), *convolution(outputs, 3)
        )
        self.shortcut = nn.Sequential(nn.Conv1d(inputs, outputs, 1, bias=False), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, inputs, time)`` to ``(n, outputs, time)``."""
        return F.relu(self.body(x) + self.shortcut(x))
