"""Whether an example looks like any class at all."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.stats import t as student
from torch import Tensor

__all__ = ["Familiarity", "squared_distances"]

_LEAST = 1e-12  # of a squared distance, whose logarithm is taken


class Familiarity(NamedTuple):
    r"""How far examples of known classes lie from their nearest class mean.

    .. math::
        s(x) = \log \min_k \lVert z(x) - c_k \rVert^2, \qquad
        p(x) = 1 - F_{m - 1}\!\left(\frac{s(x) - \bar s}{\hat\sigma \sqrt{1 + 1/m}}\right)

    Mean and deviation of s are those of m examples that each were held out of their class, and F is Student's
    distribution, so p is uniform for new examples of known classes as far as s is normal.

    Args:
        means: c, the class means ``(ways, d)``.
        centre: the mean of s.
        deviation: that of s.
        held_out: m.
    """

    means: Tensor
    centre: float
    deviation: float
    held_out: int

    @classmethod
    def of(cls, z: Float[Tensor, "n d"], labels: Int[Tensor, " n"], ways: int) -> "Familiarity":
        """Measure the examples of a fit, each held out of its class in turn.

        Raises:
            ValueError: no two examples can be held out, since fewer have another of their class.
        """
        counts = torch.bincount(labels, minlength=ways).to(z.dtype)
        means = z.new_zeros(ways, z.shape[1]).index_add(0, labels, z) / counts[:, None]
        held = counts[labels] > 1
        if int(held.sum()) < 2:
            raise ValueError(
                "a threshold is learned from examples that are held out of their class, so at least one class needs two "
                "examples; found one of each. Give more examples, or leave threshold out."
            )
        distances = squared_distances(z[held], means)
        own, n = labels[held], counts[labels[held]]
        rows = torch.arange(len(own))
        distances[rows, own] *= (n / (n - 1)) ** 2  # from the mean of the others
        scores = distances.amin(1).clamp_min(_LEAST).log()
        return cls(means, scores.mean().item(), max(scores.std().item(), 1e-6), len(scores))

    def probability(self, z: Float[Tensor, "q d"]) -> Float[Tensor, " q"]:
        """Return p: the share of examples of known classes that lie as far out as each of these, or farther."""
        scores = squared_distances(z, self.means).amin(1).clamp_min(_LEAST).log()
        ratio = (scores - self.centre) / (self.deviation * math.sqrt(1 + 1 / self.held_out))
        return torch.from_numpy(student.sf(ratio.numpy(), df=self.held_out - 1))

    def limit(self, threshold: float) -> float:
        """Return the squared distance to the nearest class mean from which on p is below a threshold."""
        ratio = float(student.isf(threshold, df=self.held_out - 1))
        return math.exp(self.centre + ratio * self.deviation * math.sqrt(1 + 1 / self.held_out))


def squared_distances(x: Float[Tensor, "q d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "q n"]:
    """Return squared distances as ``kshot.learners.metric.squared_euclidean`` does, but in the memory of the result alone.

    There may be thousands of classes, and no gradient is asked for.
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
