"""Deep kernel transfer: a task is a Gaussian process over learned features."""

import math
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch, Episode
from kshot.learners.encoded import EncodedLearner
from kshot.learners.gradient.kernels import Kernel, gaussian
from kshot.losses import mean_squared_error

__all__ = ["DeepKernel", "Posterior"]

_LEAST_NOISE = 1e-4  # variance: in float32 the Cholesky factor of a kernel without noise may not exist


class Posterior(NamedTuple):
    """What a Gaussian process knows of a task.

    Args:
        x: ``(n, d)`` the embedded support set.
        factor: ``(n, n)`` lower Cholesky factor L of the covariance of its targets.
        weights: ``(n, targets)`` that covariance's inverse times the targets.
    """

    x: Tensor
    factor: Tensor
    weights: Tensor


@final
class DeepKernel(EncodedLearner):
    r"""Regress by a Gaussian process whose kernel is that of learned features.

    .. math::
        f \sim \mathcal{GP}\left(0,\; a\, k(z(x), z(x'))\right), \qquad
        \hat y(x) = k_x^\top (K + \sigma^2 I)^{-1} Y, \qquad
        s^2(x) = a\, k(z(x), z(x)) + \sigma^2 - k_x^\top (K + \sigma^2 I)^{-1} k_x

    Learned are the encoder z, the variance a and the noise. They minimise the negative log marginal likelihood of all
    examples of a task, for each example and target, as the paper has it. By the chain rule it is the mean surprise at each
    example given those before it, so that every number of support examples is trained for, and support and query need no
    line between them. Several targets are independent processes with one kernel. An encoder that only scales gives a plain
    Gaussian process whose length scale is learned from tasks.

    Massimiliano Patacchiola, Jack Turner, Elliot Crowley, Michael O'Boyle, Amos Storkey 2020, "Bayesian meta-learning for
    the few-shot setting via deep kernels".

    Args:
        encoder: maps ``(m, *features)`` to embeddings ``(m, d)``.
        kernel: of embeddings, from ``kshot.learners.gradient.kernels``.
        variance: a at the start.
        noise: the variance of the noise at the start, above 0.0001, which it never falls below.

    Raises:
        ValueError: the variance or the noise is too small, or the encoder normalises by the batch.

    >>> learner = DeepKernel(nn.Identity())
    >>> wave = Batch(torch.tensor([[-1.0], [0.0], [1.0]]), torch.tensor([[-0.8], [0.0], [0.8]]))
    >>> state = learner.adapt(wave)
    >>> learner.predict(state, torch.tensor([[0.0], [9.0]])).abs().round(decimals=2).tolist()
    [[0.0], [0.0]]
    >>> near, far = learner.deviation(state, torch.tensor([[0.0], [9.0]])).tolist()
    >>> round(near, 2), round(far, 2)
    (0.42, 1.05)
    """

    def __init__(
        self, encoder: nn.Module, kernel: Kernel = gaussian, *, variance: float = 1.0, noise: float = 0.1
    ) -> None:
        super().__init__(encoder, mean_squared_error)
        if variance <= 0 or noise <= _LEAST_NOISE:
            raise ValueError(
                f"DeepKernel expects a variance above zero and a noise above {_LEAST_NOISE}; found {variance} and {noise}."
            )
        self.kernel = kernel
        self.log_variance = nn.Parameter(torch.tensor(float(variance)).log())
        self.log_noise = nn.Parameter(torch.tensor(noise - _LEAST_NOISE).log())

    def adapt(self, support: Batch) -> Posterior:
        """Return the posterior, by one Cholesky factor.

        Raises:
            ValueError: in these digits there is none.
        """
        factor = self._factor(support.x)
        return Posterior(support.x, factor, torch.cholesky_solve(support.y, factor))

    def predict(self, state: Posterior, x: Float[Tensor, "q d"]) -> Float[Tensor, "q targets"]:
        """Return the posterior mean, ``(q, targets)``."""
        return self._covariance(x, state.x) @ state.weights

    def deviation(self, state: Posterior, x: Float[Tensor, "q d"]) -> Float[Tensor, " q"]:
        """Return the standard deviation of a new observation, its noise included, ``(q,)``."""
        explained = torch.linalg.solve_triangular(state.factor, self._covariance(state.x, x), upper=False)
        prior = torch.func.vmap(lambda row: self._covariance(row[None], row[None])[0, 0])(x)
        deviation: Tensor = ((prior - explained.square().sum(0)).clamp_min(0) + self._noise()).sqrt()
        return deviation

    def task_loss(self, task: Episode) -> Tensor:
        """Return the negative log marginal likelihood of all examples, for each example and target."""
        x, y = (torch.cat(parts) for parts in zip(*task, strict=True))
        factor = self._factor(x)
        white = torch.linalg.solve_triangular(factor, y, upper=False)
        loss: Tensor = white.square().mean() / 2 + factor.diagonal().log().mean() + math.log(2 * math.pi) / 2
        return loss

    def _factor(self, x: Tensor) -> Tensor:
        noise = self._noise() * torch.eye(len(x), dtype=x.dtype, device=x.device)
        try:
            factor: Tensor = torch.linalg.cholesky(self._covariance(x, x) + noise)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise ValueError(
                f"the covariance of {len(x)} examples has no Cholesky factor in {x.dtype}: the noise is too small beside "
                "the kernel's values, or some are not finite. Raise noise=, normalise the embeddings, or compute in float64."
            ) from error
        return factor

    def _covariance(self, x: Tensor, y: Tensor) -> Tensor:
        return self.log_variance.exp() * self.kernel(x, y)

    def _noise(self) -> Tensor:
        return self.log_noise.exp() + _LEAST_NOISE
