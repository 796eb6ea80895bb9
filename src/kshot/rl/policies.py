"""Policies: nets whose outputs are the parameters of a distribution of actions."""

import math
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad, jvp

from kshot.rl.environments.base import Environment

__all__ = ["CategoricalPolicy", "GaussianPolicy", "Parameters", "Policy", "policy_for"]

Parameters: TypeAlias = tuple[Tensor, ...]  # of a distribution: a row for each observation


class Policy(nn.Module, ABC):
    """A net that maps observations to the parameters of a distribution of actions, and what is known of that distribution.

    The parameters of the net are what is meta-learned, and what adapts.
    """

    @abstractmethod
    def forward(self, observations: Float[Tensor, "*m features"]) -> Parameters:
        """Return the parameters of the distribution for each observation."""

    @abstractmethod
    def sample(self, parameters: Parameters, generator: torch.Generator) -> Float[Tensor, "*m actions"]:
        """Draw actions."""

    @abstractmethod
    def log_prob(self, parameters: Parameters, actions: Float[Tensor, "*m actions"]) -> Float[Tensor, "*m"]:
        """Return the logarithm of the density of whole actions: it sums over their numbers."""

    @abstractmethod
    def divergence(self, old: Parameters, new: Parameters) -> Float[Tensor, "*m"]:
        """Return KL(old || new) for each observation."""

    def metric(self, parameters: Parameters, tangent: Parameters) -> Parameters:
        """Multiply a tangent by the Fisher information of the distribution, which is the Hessian of its divergence."""

        def slope(new: Parameters) -> Parameters:
            return grad(lambda new: self.divergence(parameters, new).sum())(new)  # type: ignore[no-any-return]

        product: Parameters = jvp(slope, (parameters,), (tangent,))[1]
        return product


@final
class GaussianPolicy(Policy):
    r"""An MLP gives the mean of each number of an action, :math:`a \sim N(\mu(o), \mathrm{diag}\, \sigma^2)`.

    The logarithm of sigma is a parameter of its own, the same for all observations; it starts at zero and adapts too.

    Args:
        features: numbers in an observation.
        actions: numbers in an action.
        hidden: widths of the hidden layers.
        activation: between them.

    >>> mean, log_std = GaussianPolicy(2, 2)(torch.zeros(7, 2))
    >>> mean.shape, log_std.shape
    (torch.Size([7, 2]), torch.Size([7, 2]))
    """

    least_log_std = math.log(1e-6)

    def __init__(
        self, features: int, actions: int, hidden: tuple[int, ...] = (100, 100), activation: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.net = _net(features, actions, hidden, activation)
        self.log_std = nn.Parameter(torch.zeros(actions))

    def forward(self, observations: Float[Tensor, "*m features"]) -> Parameters:
        """Return mean and logarithm of the deviation, ``(*m, actions)`` each."""
        mean = self.net(observations)
        return mean, self.log_std.clamp_min(self.least_log_std).expand_as(mean)

    def sample(self, parameters: Parameters, generator: torch.Generator) -> Float[Tensor, "*m actions"]:
        """Draw actions."""
        mean, log_std = parameters
        return mean + log_std.exp() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)

    def log_prob(self, parameters: Parameters, actions: Float[Tensor, "*m actions"]) -> Float[Tensor, "*m"]:
        """Return the logarithm of the density, summed over the numbers of an action."""
        mean, log_std = parameters
        squares = ((actions - mean) * (-log_std).exp()).square()
        return -(0.5 * squares + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def divergence(self, old: Parameters, new: Parameters) -> Float[Tensor, "*m"]:
        """Return KL(old || new) for each observation."""
        (mean, log_std), (mean_new, log_std_new) = old, new
        spread = ((2 * log_std).exp() + (mean - mean_new).square()) * (-2 * log_std_new).exp()
        return (log_std_new - log_std + 0.5 * spread - 0.5).sum(-1)


@final
class CategoricalPolicy(Policy):
    """An MLP gives the logits of the choices; actions are one-hot rows.

    Args:
        features: numbers in an observation.
        actions: choices.
        hidden: widths of the hidden layers.
        activation: between them.

    >>> policy = CategoricalPolicy(1, 5)
    >>> policy.log_prob(policy(torch.ones(3, 1)), torch.eye(5)[:3]).shape
    torch.Size([3])
    """

    def __init__(
        self, features: int, actions: int, hidden: tuple[int, ...] = (32, 32), activation: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.net = _net(features, actions, hidden, activation)

    def forward(self, observations: Float[Tensor, "*m features"]) -> Parameters:
        """Return the logarithm of the probability of each choice, ``(*m, actions)``."""
        return (self.net(observations).log_softmax(-1),)

    def sample(self, parameters: Parameters, generator: torch.Generator) -> Float[Tensor, "*m actions"]:
        """Draw choices, one-hot."""
        (logits,) = parameters
        # The highest of logits with Gumbel noise is a draw from the softmax.
        noise = torch.empty_like(logits).exponential_(generator=generator)
        return F.one_hot((logits - noise.log()).argmax(-1), logits.shape[-1]).to(logits)

    def log_prob(self, parameters: Parameters, actions: Float[Tensor, "*m actions"]) -> Float[Tensor, "*m"]:
        """Return the logarithm of the probability of choices."""
        (logits,) = parameters
        return (logits.log_softmax(-1) * actions).sum(-1)

    def divergence(self, old: Parameters, new: Parameters) -> Float[Tensor, "*m"]:
        """Return KL(old || new) for each observation."""
        (old_logits,), (new_logits,) = old, new
        # Normalised here, so that the second derivative in the logits is the Fisher information.
        before, after = old_logits.log_softmax(-1), new_logits.log_softmax(-1)
        return (before.exp() * (before - after)).sum(-1)


def policy_for(
    environment: Environment, hidden: tuple[int, ...] = (100, 100), activation: type[nn.Module] = nn.ReLU
) -> Policy:
    """Return a new policy for the observations and actions of an environment."""
    kind = CategoricalPolicy if environment.discrete else GaussianPolicy
    return kind(environment.features, environment.actions, hidden, activation)


def _net(features: int, actions: int, hidden: tuple[int, ...], activation: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, following in pairwise((features, *hidden, actions)):
        layer = nn.Linear(width, following)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])
