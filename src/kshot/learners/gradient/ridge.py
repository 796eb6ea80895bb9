"""R2-D2: the last layer of a task is the solution of ridge regression, in closed form."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch
from kshot.learners.encoded import EncodedLearner
from kshot.losses import Loss, cross_entropy

__all__ = ["Ridge"]


@final
class Ridge(EncodedLearner):
    r"""Fit a linear map of embeddings to the labels by ridge regression, and differentiate through its solution.

    .. math::
        W = Z^\top (Z Z^\top + \lambda I)^{-1} Y = (Z^\top Z + \lambda I)^{-1} Z^\top Y, \qquad
        \hat y(x) = a\, f(x)^\top W

    Z holds the embeddings f of the support set, and a column of ones. The smaller system is solved. What is
    meta-learned beside the encoder are lambda, and a, which makes logits of what is fitted to zeros and ones. The paper also
    adds a learned number to all logits of a query, which changes no probability.

    Luca Bertinetto, João Henriques, Philip Torr, Andrea Vedaldi 2019, "Meta-learning with differentiable closed-form
    solvers".

    Args:
        encoder: maps ``(m, *features)`` to embeddings ``(m, d)``.
        loss: what the query predictions are judged by; for regression targets ``mean_squared_error``.
        penalty: lambda at the start.
        scale: a at the start. Like lambda it is learned by its logarithm, so that it can grow many times over.

    Raises:
        ValueError: the penalty or the scale is not positive, or the encoder normalises by the batch.

    >>> from kshot.losses import mean_squared_error
    >>> learner = Ridge(nn.Identity(), mean_squared_error, penalty=1e-6)
    >>> weights = learner.adapt(Batch(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [3.0], [5.0]])))
    >>> learner.predict(weights, torch.tensor([[10.0]])).round(decimals=2)
    tensor([[21.]], grad_fn=<RoundBackward1>)
    """

    def __init__(
        self, encoder: nn.Module, loss: Loss = cross_entropy, *, penalty: float = 1.0, scale: float = 1.0
    ) -> None:
        super().__init__(encoder, loss)
        if penalty <= 0 or scale <= 0:
            raise ValueError(
                "Ridge expects a penalty and a scale above zero, whose logarithms are learned; found "
                f"{penalty} and {scale}."
            )
        self.log_penalty = nn.Parameter(torch.tensor(float(penalty)).log())
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log())

    def adapt(self, support: Batch) -> Float[Tensor, "features ways"]:
        """Return the weights of the last layer, that of the ones last, ``(d + 1, ways)``."""
        weight = self.loss.weight(support.y)[:, None]
        z, y = _with_ones(support.x) * weight, support.y
        few = len(z) < z.shape[1]
        products = z @ z.mT if few else z.mT @ z
        system = products + self.log_penalty.exp() * torch.eye(len(products), dtype=z.dtype, device=z.device)
        weights: Tensor = z.mT @ torch.linalg.solve(system, y) if few else torch.linalg.solve(system, z.mT @ y)
        return weights

    def predict(self, state: Float[Tensor, "features ways"], x: Float[Tensor, "q d"]) -> Float[Tensor, "q ways"]:
        """Return logits or targets, ``(q, ways)``."""
        return self.log_scale.exp() * (_with_ones(x) @ state)


def _with_ones(z: Tensor) -> Tensor:
    return torch.cat([z, torch.ones_like(z[:, :1])], 1)
