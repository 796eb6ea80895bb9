"""The four-block convolutional net of few-shot learning."""

from collections.abc import Callable
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor, nn

from kshot.validation import check_choice, check_sizes

__all__ = ["Conv4", "Downsample", "Space"]

Downsample: TypeAlias = Literal["pool", "stride"]
Space: TypeAlias = Literal["flatten", "mean"]


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, normalisation and ReLU, each halving the picture.

    Pooled and flattened it is the embedding of Matching and Prototypical networks (Oriol Vinyals et al. 2016, "Matching
    networks for one shot learning"): 28x28 becomes 64 features, 84x84 becomes 1,600. With ``downsample="stride"`` and
    ``space="mean"`` it is the body of MAML's Omniglot net (Chelsea Finn et al. 2017, "Model-agnostic meta-learning").

    Args:
        channels: of the pictures.
        filters: of each block.
        downsample: halve by 2x2 max-pooling, or by convolutions of stride 2.
        space: flatten what remains of the picture, or take its mean.
        norm: makes the normalisation of a block from its number of filters; see ``kshot.nets.norm``.

    Raises:
        ValueError: there is no such ``downsample`` or ``space``, or no channel or filter at all.

    >>> import torch
    >>> Conv4()(torch.zeros(2, 1, 28, 28)).shape, Conv4(3, 32)(torch.zeros(2, 3, 84, 84)).shape
    (torch.Size([2, 64]), torch.Size([2, 800]))
    """

    def __init__(
        self,
        channels: int = 1,
        filters: int = 64,
        downsample: Downsample = "pool",
        space: Space = "flatten",
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        check_choice("downsample", downsample, Downsample)
        check_choice("space", space, Space)
        check_sizes(channels=channels, filters=filters)
        stride, halve = (1, nn.MaxPool2d(2)) if downsample == "pool" else (2, nn.Identity())
        widths = (channels, filters, filters, filters)
        self.blocks = nn.Sequential(
            *(
                # Pooling before ReLU gives the same numbers as after it, on a quarter of the values.
                nn.Sequential(nn.Conv2d(width, filters, 3, stride, padding=1), norm(filters), halve, nn.ReLU())
                for width in widths
            )
        )
        self.downsample, self.space = downsample, space

    def forward(self, x: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n features"]:
        """Map pictures ``(n, channels, height, width)`` to ``(n, features)``."""
        maps: Tensor = self.blocks(x)
        return maps.flatten(1) if self.space == "flatten" else maps.mean((2, 3))
