"""What comes behind a trained encoder: features made comparable, and a head that compares by angle."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.modes import in_eval_mode

__all__ = ["CentreAndNormalise", "CosineClassifier", "unit_scaled"]


def unit_scaled(x: Tensor) -> Tensor:
    """Return uint8 as 0..1, and anything else as it is.

    >>> unit_scaled(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([0., 1.])
    """
    return x.to(torch.get_default_dtype()) / 255 if x.dtype == torch.uint8 else x


@final
class CentreAndNormalise(nn.Module):
    r"""Subtract the mean embedding of the training classes, and bring what is left to length one.

    .. math:: z' = (z - \bar z) / \lVert z - \bar z \rVert

    Yan Wang et al. 2019, "SimpleShot: revisiting nearest-neighbor classification for few-shot learning", which is
    ``Prototypical(nn.Sequential(encoder, CentreAndNormalise(mean)))`` on a trained encoder.

    Args:
        mean: the mean embedding ``(d,)``; see ``mean_of``.

    >>> CentreAndNormalise(torch.tensor([1.0, 1.0]))(torch.tensor([[4.0, 5.0]]))
    tensor([[0.6000, 0.8000]])
    """

    mean: Tensor

    def __init__(self, mean: Float[Tensor, " d"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean)

    @staticmethod
    @torch.no_grad()
    def mean_of(encoder: nn.Module, x: Tensor, batch_size: int = 256) -> Float[Tensor, " d"]:
        """Return the mean embedding of examples ``(n, *features)``, where uint8 becomes 0..1, by an encoder in eval mode."""
        parts = (x[start : start + batch_size] for start in range(0, len(x), batch_size))
        with in_eval_mode(encoder):
            total = torch.stack([encoder(unit_scaled(part)).sum(0, dtype=torch.float64) for part in parts]).sum(0)
        return (total / len(x)).to(torch.get_default_dtype())

    def forward(self, z: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Return the features ``(m, d)``; an embedding at the mean stays at the origin."""
        return nn.functional.normalize(z - self.mean, dim=-1)


@final
class CosineClassifier(nn.Module):
    r"""Score classes by the angle to a weight vector each, :math:`\tau \cos(z, w_k)`.

    Wei-Yu Chen et al. 2019, "A closer look at few-shot classification": Baseline++ is
    ``MAML(CosineClassifier(d, ways), lr, steps=100, differentiate="first_order", encoder=encoder)`` on an encoder that was
    trained with such a head.

    Args:
        features: of an embedding.
        ways: classes.
        scale: tau.

    >>> head = CosineClassifier(2, 3)
    >>> bool((head(torch.randn(5, 2)).abs() <= 10).all())
    True
    """

    def __init__(self, features: int, ways: int, scale: float = 10.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(ways, features) / features**0.5)
        self.scale = scale

    def forward(self, z: Float[Tensor, "m d"]) -> Float[Tensor, "m ways"]:
        """Return the scores ``(m, ways)``."""
        normalise = nn.functional.normalize
        return self.scale * normalise(z, dim=-1) @ normalise(self.weight, dim=-1).mT
