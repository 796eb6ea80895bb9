"""Proximal meta-policy search: gradient steps on clipped ratios, in place of a trust region."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from kshot.learners.gradient.inner_loop import InnerLoop
from kshot.rl.adaptation import PolicyGradientSteps
from kshot.rl.gradient_learner import GradientPolicyLearner
from kshot.rl.losses import divergence, surrogate
from kshot.rl.policies import Policy
from kshot.rl.ppo import clipped_surrogate
from kshot.rl.trajectories import Samples
from kshot.weights import Weights, call

__all__ = ["ProMP", "ProMPOutcome"]


class ProMPOutcome(NamedTuple):
    """The loss of the last epoch, and how far the adapted policies have gone from those that collected."""

    loss: float
    divergence: float

    def metrics(self) -> dict[str, float]:
        """Return its numbers by name."""
        return self._asdict()


class _Collected(NamedTuple):
    """The samples before each inner step and after the last, with the weights that collected them."""

    path: list[Samples]
    after: Samples
    weights: list[Weights]
    likely: list[Tensor]  # logarithms of the densities of what was done


@final
class ProMP(GradientPolicyLearner):
    r"""Meta-learn a policy by several gradient steps on the same trajectories.

    .. math::
        \min_w \frac{1}{T} \sum_i \Big[ -\mathbb{E}\, \min(\rho_i A, \mathrm{clip}(\rho_i, 1 - \epsilon, 1 + \epsilon) A)
        + \eta\, \mathrm{KL}(\pi_{w_\mathrm{old}} \| \pi_w) \Big],
        \qquad w_i = w + \alpha \nabla_w \mathbb{E}\, \frac{\pi_w}{\pi_{w_\mathrm{old}}} A

    with the ratio :math:`\rho_i` of the adapted policy to the one that collected. The inner step is on a ratio, too: its
    gradient at the old weights is that of REINFORCE, and its second derivative an unbiased estimate of how adaptation
    turns with the weights, which that of REINFORCE is not. Jonas Rothfuss, Dennis Lee, Ignasi Clavera, Tamim Asfour, Pieter
    Abbeel 2019, "ProMP: proximal meta-policy search".

    Args:
        policy: whose weights are meta-learned, in place.
        optimizer: of its parameters; Adam with 1e-3 by default.
        lr: alpha, the inner step size.
        clip: epsilon.
        epochs: gradient steps of an update.
        penalty: eta.

    Raises:
        ValueError: one of them is out of its range.

    >>> from kshot.rl.policies import GaussianPolicy
    >>> learner = ProMP(GaussianPolicy(2, 2, hidden=(8,)))
    >>> before, after = (
    ...     Samples(torch.randn(3, 9, 2), torch.randn(3, 9, 2), torch.randn(3, 9), torch.full((3, 9), 1 / 9)) for _ in "12"
    ... )
    >>> learner.update([before], after).divergence < 0.1
    True
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        lr: float = 0.1,
        clip: float = 0.3,
        epochs: int = 5,
        penalty: float = 5e-4,
    ) -> None:
        if lr < 0 or clip <= 0 or epochs < 1 or penalty < 0:
            found = f"{lr}, {clip}, {epochs} and {penalty}"
            raise ValueError(f"expected lr >= 0, clip > 0, epochs >= 1 and penalty >= 0; found {found}.")
        self.policy, self.clip, self.epochs, self.penalty = policy, clip, epochs, penalty
        self.optimizer = torch.optim.Adam(policy.parameters(), 1e-3) if optimizer is None else optimizer
        self.inner = PolicyGradientSteps(policy, lr)
        self._loop = InnerLoop()

    def update(self, path: Sequence[Samples], after: Samples) -> ProMPOutcome:
        """Take an outer step of so many epochs; see ``GradientPolicyLearner.update``."""
        collected = self._collected(path, after)
        value = math.nan
        for _ in range(self.epochs):
            loss = self._meta_loss(collected)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            gradients = [weight.grad for weight in self.policy.parameters() if weight.grad is not None]
            value = loss.item()
            if not (math.isfinite(value) and all(bool(one.isfinite().all()) for one in gradients)):
                raise FloatingPointError("the meta-gradient is not finite: the policy has diverged; try smaller steps.")
            self.optimizer.step()
        with torch.no_grad():
            moved: Tensor = vmap(self._moved, in_dims=(None, 0))(self._start(), collected)
        return ProMPOutcome(value, moved.mean().item())

    def state(self) -> dict[str, Any]:
        """Return weights and the state of the optimizer."""
        return {**super().state(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from weights and the state of the optimizer."""
        super().restore(state)
        self.optimizer.load_state_dict(state["optimizer"])

    def _meta_loss(self, collected: _Collected) -> Float[Tensor, ""]:
        losses: Tensor = vmap(self._task_loss, in_dims=(None, 0))(self._start(), collected)
        return losses.mean()

    def _start(self) -> Weights:
        return dict(self.policy.named_parameters())

    @torch.no_grad()
    def _collected(self, path: Sequence[Samples], after: Samples) -> _Collected:
        """Follow the adaptation of the policy that collected, and keep how likely it was to do what it did."""
        start = self.inner.start(len(after.weights))
        weights = [{name: one.clone() for name, one in start.items()}]  # which the epochs do not move
        for samples in path:
            weights.append(self.inner(weights[-1], samples))
        likely = [vmap(self._log_prob)(one, samples) for one, samples in zip(weights, (*path, after), strict=True)]
        return _Collected(list(path), after, weights, likely)

    def _task_loss(self, start: Weights, collected: _Collected) -> Tensor:
        path, after, old, likely = collected
        weights = self._adapted(start, path, likely[:-1])
        ratio = (self._log_prob(weights, after) - likely[-1]).exp()
        gain = (after.weights * clipped_surrogate(ratio, after.advantages, self.clip)).sum()
        if not path:
            return -gain
        return self.penalty * divergence(self.policy, old[0], start, path[0]) - gain

    def _moved(self, start: Weights, collected: _Collected) -> Tensor:
        adapted = self._adapted(start, collected.path, collected.likely[:-1])
        return divergence(self.policy, collected.weights[-1], adapted, collected.after)

    def _adapted(self, weights: Weights, path: Sequence[Samples], likely: Sequence[Tensor]) -> Weights:
        sizes = [{name: one.new_tensor(self.inner.lr) for name, one in weights.items()}]
        for given in zip(path, likely, strict=True):
            weights = self._loop(lambda w, given: surrogate(self.policy, w, *given), weights, given, sizes)
        return weights

    def _log_prob(self, weights: Weights, samples: Samples) -> Tensor:
        return self.policy.log_prob(call(self.policy, weights, samples.observations), samples.actions)
