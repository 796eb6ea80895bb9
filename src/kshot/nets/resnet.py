"""ResNet-12, the deeper backbone of few-shot learning."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["ResNet12", "ResidualBlock"]


class ResNet12(nn.Module):
    """Four residual blocks of three convolutions, each halving the picture, and the mean over what remains.

    Kwonjoon Lee et al. 2019, "Meta-learning with differentiable convex optimization" (MetaOptNet), without DropBlock.

    Args:
        channels: of the pictures.
        widths: filters of the four blocks.
        norm: makes the normalisation of a layer from its number of filters; see ``kshot.nets.norm``.

    >>> import torch
    >>> ResNet12(widths=(8, 16, 32, 64))(torch.zeros(2, 3, 84, 84)).shape
    torch.Size([2, 64])
    """

    def __init__(
        self,
        channels: int = 3,
        widths: tuple[int, int, int, int] = (64, 160, 320, 640),
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        inputs = (channels, *widths[:3])
        self.blocks = nn.Sequential(*(ResidualBlock(*pair, norm) for pair in zip(inputs, widths, strict=True)))

    def forward(self, x: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        """Map pictures ``(n, channels, height, width)`` to ``(n, features)``."""
        return self.blocks(x).mean((2, 3))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Three convolutions beside a short cut.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        norm: as for ``ResNet12``.
        halve: whether the maps are pooled to half their side.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        halve: bool = True,
    ) -> None:
        super().__init__()

        def convolution(width: int) -> list[nn.Module]:
            return [nn.Conv2d(width, outputs, 3, padding=1, bias=False), norm(outputs)]

        activation = nn.LeakyReLU(0.1)
        self.body = nn.Sequential(
            *convolution(inputs), activation, *convolution(outputs), activation, *convolution(outputs)
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), norm(outputs))
        self.halve = halve

    def forward(self, x: Float[Tensor, "n inputs height width"]) -> Float[Tensor, "n outputs rows columns"]:
        """Map ``(n, inputs, height, width)`` to ``(n, outputs, height, width)``, or to half the height and width."""
        y = F.leaky_relu(self.body(x) + self.shortcut(x), 0.1)
        return F.max_pool2d(y, 2) if self.halve else y
