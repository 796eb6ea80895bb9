"""A learned distance of two pictures: does each place of one look like some place near it in the other?"""

import math
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Correspondence"]

_LARGEST_TAU = 64.0  # exp(64) and exp(-64) leave float32 room for beta and for sums


@final
class Correspondence(nn.Module):
    r"""The distance by which the places of two pictures fail to find their like near where they are.

    .. math::
        m_i(x, y) = \frac{1}{\tau} \log \sum_{j \in N(i)} \beta_{j - i}\, e^{\tau (\cos(x_i, y_j) - 1)}, \qquad
        d(x, y) = b - a \sum_i \left(\omega_i(x)\, m_i(x, y) + \omega_i(y)\, m_i(y, x)\right)

    N(i) are the places at most ``reach`` rows and columns away, omega a softmax over places, and tau (up to 64), beta, a
    and b are learned, beta the same both ways; so is d. It forgives strokes that bend and move.

    Wenbin Li et al. 2019, "Revisiting local descriptor based image-to-class measure for few-shot learning" (DN4), has
    the three nearest anywhere, nothing learned, and one direction.

    Args:
        channels: of the maps.
        reach: how far a place may have moved, in places.

    >>> d = Correspondence(8)
    >>> maps = torch.rand(3, 8, 5, 5)
    >>> d(maps, maps).argmin(1)
    tensor([0, 1, 2])
    """

    def __init__(self, channels: int, reach: int = 2) -> None:
        super().__init__()
        self.reach = reach
        self.weight = nn.Conv2d(channels, 1, 1)
        self.log_beta = nn.Parameter(torch.zeros(2 * reach + 1, 2 * reach + 1))
        self.log_tau = nn.Parameter(torch.tensor(math.log(10.0)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "q c h w"], y: Float[Tensor, "n c h w"]) -> Float[Tensor, "q n"]:
        """Return the distances of maps ``(q, c, h, w)`` and ``(n, c, h, w)``, ``(q, n)``.

        Raises:
            ValueError: they are not maps, or not of one size.
        """
        if x.dim() != 4 or x.shape[1:] != y.shape[1:]:
            raise ValueError(
                f"Correspondence expects maps (m, channels, height, width) of one size; found {tuple(x.shape)} and "
                f"{tuple(y.shape)}. Give it an encoder that keeps maps, such as kshot.nets.relation.relation_encoder."
            )
        tau = self.log_tau.exp().clamp_max(_LARGEST_TAU)
        q, n, places = len(x), len(y), x.shape[2:].numel()
        x_places, y_places = (F.normalize(maps, dim=1).flatten(2).mT.flatten(0, 1) for maps in (x, y))
        cosines = (tau * x_places @ y_places.mT).view(q, places, n, places)
        alike = cosines.exp() * self._near(*x.shape[2:])[:, None]  # once for both directions
        x_found, y_found = (alike.sum(axis).log() / tau - 1 for axis in (3, 1))
        x_weight, y_weight = (self.weight(maps).flatten(1).softmax(1) for maps in (x, y))
        agreement = (x_weight[:, :, None] * x_found).sum(1) + (y_weight * y_found).sum(2)
        distances: Tensor = self.bias - self.log_scale.exp() * agreement
        return distances

    def _near(self, height: int, width: int) -> Float[Tensor, "places places"]:
        """Return beta of every two places, and zero out of reach."""
        beta = (self.log_beta + self.log_beta.flip(0, 1)).exp()
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        steps = torch.stack([at.flatten() - at.flatten()[:, None] for at in (rows, columns)]).to(beta.device)
        near = (steps.abs() <= self.reach).all(0)
        down, right = steps.clamp(-self.reach, self.reach) + self.reach
        return torch.where(near, beta[down, right], 0)
