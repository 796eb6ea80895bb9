"""The nets of relation networks: maps of a picture, and a score of two maps side by side."""

from collections.abc import Callable

from torch import nn

from kshot.nets.norm import group_norm

__all__ = ["relation_encoder", "relation_score"]


def _block(channels: int, filters: int, norm: Callable[[int], nn.Module], halve: bool) -> nn.Module:
    pooling = [nn.MaxPool2d(2)] if halve else []
    return nn.Sequential(nn.Conv2d(channels, filters, 3, padding=1), norm(filters), *pooling, nn.ReLU())


def relation_encoder(
    channels: int = 1, filters: int = 64, norm: Callable[[int], nn.Module] = nn.BatchNorm2d
) -> nn.Module:
    """Return four convolutional blocks, the first two of which halve the picture: 28x28 becomes ``filters`` maps of 7x7.

    Flood Sung et al. 2018, "Learning to compare: relation network for few-shot learning", whose first two blocks do not
    pad, and so end at 5x5.

    >>> import torch
    >>> relation_encoder()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 64, 7, 7])
    """
    widths = (channels, filters, filters, filters)
    return nn.Sequential(*(_block(width, filters, norm, halve=i < 2) for i, width in enumerate(widths)))


def relation_score(
    filters: int = 64, size: int = 7, hidden: int = 8, norm: Callable[[int], nn.Module] = group_norm
) -> nn.Module:
    """Return the net that scores two sets of maps, one after the other along the channels, of ``size`` pixels squared.

    Its normalisation meets all pairs of a task at once, so that batch statistics (``BatchStatisticsNorm``, as in the
    paper's code) make the learner transductive.

    >>> import torch
    >>> relation_score()(torch.zeros(3, 128, 7, 7)).shape
    torch.Size([3, 1])
    """
    blocks = (_block(2 * filters, filters, norm, halve=True), _block(filters, filters, norm, halve=True))
    pixels = (size // 4) ** 2
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(filters * pixels, hidden), nn.ReLU(), nn.Linear(hidden, 1))
