"""Proximal policy optimisation of a recurrent policy on whole trials."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from kshot.rl.advantages import trial_advantages
from kshot.rl.recurrent_policy import RecurrentPolicy
from kshot.rl.trials import Trials

__all__ = ["PPO", "clipped_surrogate"]


def clipped_surrogate(ratio: Float[Tensor, "*m"], advantages: Float[Tensor, "*m"], clip: float) -> Float[Tensor, "*m"]:
    r"""Return :math:`\min(\rho A, \mathrm{clip}(\rho, 1 - \epsilon, 1 + \epsilon) A)` for each step.

    >>> clipped_surrogate(torch.tensor([2.0, 2.0, 0.5]), torch.tensor([1.0, -1.0, 1.0]), 0.2)
    tensor([ 1.2000, -2.0000,  0.5000])
    """
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


@dataclass
class PPO:
    """Improve a recurrent policy on the trials that it collected.

    John Schulman et al. 2017, "Proximal policy optimization algorithms". Gradients run through all steps of a trial.

    Args:
        policy: trained in place.
        optimizer: of its parameters.
        discount: gamma.
        decay: lambda of the advantage estimates.
        clip: how far the ratio of probabilities may move before it gains nothing more.
        epochs: passes over the trials.
        batches: minibatches of whole trials in a pass; at most as many as there are trials.
        entropy: its weight in the loss.
        value: the weight of the squared error of values, as a part of the variance of what they should be.
        norm: the largest norm of a gradient.
    """

    policy: RecurrentPolicy
    optimizer: torch.optim.Optimizer
    discount: float = 0.99
    decay: float = 0.3
    clip: float = 0.2
    epochs: int = 4
    batches: int = 4
    entropy: float = 0.0
    value: float = 0.5
    norm: float = 1.0

    def update(self, trials: Trials, generator: torch.Generator) -> float:
        """Take a pass of gradient steps after the other; return the mean loss of the last.

        Raises:
            FloatingPointError: the loss or its gradient is not finite; the weights are those of the step before.
        """
        advantages = trial_advantages(trials.rewards, trials.values, trials.mask, self.discount, self.decay)
        targets = advantages + trials.values
        on = trials.mask > 0
        # Values of a hundred would otherwise drown the policy's gradient. (Uncorrected, for there may be a single step.)
        spread = targets[on].var(correction=0) + 1e-8
        advantages = (advantages - advantages[on].mean()) / (advantages[on].std(correction=0) + 1e-8)
        losses: list[float] = []
        for _ in range(self.epochs):
            order = torch.randperm(trials.mask.shape[1], generator=generator)
            losses = [
                self._step(Trials(*(leaf[:, rows] for leaf in trials)), advantages[:, rows], targets[:, rows], spread)
                for rows in order.tensor_split(min(self.batches, len(order)))
            ]
        return sum(losses) / len(losses)

    def _step(self, trials: Trials, advantages: Tensor, targets: Tensor, spread: Tensor) -> float:
        acted = self.policy(trials.inputs, self.policy.start(trials.mask.shape[1]))
        likely = acted.logits.log_softmax(-1)
        ratio = ((likely * trials.actions).sum(-1) - trials.log_probs).exp()
        gain = clipped_surrogate(ratio, advantages, self.clip) - self.entropy * (likely.exp() * likely).sum(-1)
        each = self.value * (acted.values - targets).square() / spread - gain
        loss = (each * trials.mask).sum() / trials.mask.sum()
        self.optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(self.policy.parameters(), self.norm)
        if not bool((loss + norm).isfinite()):
            raise FloatingPointError("PPO's loss or its gradient is not finite. Try a smaller learning rate.")
        self.optimizer.step()
        return float(loss.detach())
