"""The inner loop of meta-reinforcement learning: policy-gradient steps, and their exact Jacobian as a product."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from kshot.learners.gradient.inner_loop import InnerLoop
from kshot.rl.losses import reinforce
from kshot.rl.policies import Policy
from kshot.rl.products import Kept, Products
from kshot.rl.trajectories import Samples
from kshot.weights import Weights

__all__ = ["Adapted", "PolicyGradientSteps"]


class PolicyGradientSteps:
    r"""Adapt a policy by steps of REINFORCE, :math:`w_{s+1} = w_s - \alpha \nabla L(w_s; \tau_s)`.

    Each step has trajectories of its own, which the policy with the weights before it collected. Their Jacobian takes them
    as given, as the paper's code does: how other weights would have met other trajectories is left out.

    Args:
        policy: whose weights adapt.
        lr: alpha.

    >>> from kshot.rl.policies import GaussianPolicy
    >>> policy = GaussianPolicy(2, 2, hidden=(8,))
    >>> steps = PolicyGradientSteps(policy, lr=0.1)
    >>> samples = Samples(torch.randn(3, 9, 2), torch.randn(3, 9, 2), torch.randn(3, 9), torch.full((3, 9), 1 / 9))
    >>> steps(steps.start(3), samples)["log_std"].shape
    torch.Size([3, 2])
    """

    def __init__(self, policy: Policy, lr: float) -> None:
        self.policy, self.lr = policy, lr
        self._loop = InnerLoop(mode="first_order")
        self._curvature = Products(self._gradient_and_product)

    def start(self, tasks: int) -> Weights:
        """Return the weights before adaptation, the same for each of so many tasks."""
        return {name: one.detach().expand(tasks, *one.shape) for name, one in self.policy.named_parameters()}

    @torch.no_grad()
    def __call__(self, weights: Weights, samples: Samples, lr: float | None = None) -> Weights:
        """Take one step in each of many tasks.

        Args:
            weights: with a leading task axis.
            samples: with a leading task axis, collected with these weights.
            lr: the step size, where it is another than in training.
        """
        sizes = [{name: one.new_tensor(self.lr if lr is None else lr) for name, one in weights.items()}]
        step = vmap(lambda weights, samples: self._loop(self._loss, weights, samples, sizes))
        adapted: Weights = step(weights, samples)
        return adapted

    def differentiated(self, weights: Weights, path: Sequence[Samples]) -> "Adapted":
        """Adapt to one task, and keep what products with the Jacobian of its adapted weights need."""
        kept: list[Kept] = []
        for samples in path:
            gradient, one = self._curvature.at((weights, samples), weights)
            weights = {name: weights[name] - self.lr * gradient[name] for name in weights}
            kept.append(one)
        return Adapted(weights, kept, self.lr)

    def _loss(self, weights: Weights, samples: Samples) -> Tensor:
        return reinforce(self.policy, weights, samples)

    def _gradient_and_product(self, given: tuple[Weights, Samples], v: Weights) -> Any:
        weights, samples = given
        return jvp(lambda weights: grad(self._loss)(weights, samples), (weights,), (v,))


class Adapted(NamedTuple):
    """Adapted weights of one task, as a function of the weights that all tasks start from."""

    weights: Weights
    curvatures: list[Kept]
    lr: float

    def push(self, v: Weights) -> Weights:
        r"""Return :math:`J v`, with :math:`J = \prod_s (I - \alpha H_s)`: where a change of the start leads."""
        for kept in self.curvatures:
            v = self._less_curved(v, kept)
        return v

    def pull(self, v: Weights) -> Weights:
        r"""Return :math:`J^\top v`: a gradient in the adapted weights as one in the start."""
        for kept in reversed(self.curvatures):  # each factor is symmetric
            v = self._less_curved(v, kept)
        return v

    def _less_curved(self, v: Weights, kept: Kept) -> Weights:
        product: Weights = Products.along(kept, v)
        return {name: v[name] - self.lr * product[name] for name in v}
