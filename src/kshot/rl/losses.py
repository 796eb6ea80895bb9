"""Policy-gradient losses: of one task, as functions of the outputs of a policy."""

from jaxtyping import Float
from torch import Tensor

from kshot.rl.policies import Policy
from kshot.rl.trajectories import Samples
from kshot.weights import Weights, call

__all__ = ["divergence", "reinforce", "surrogate"]


def reinforce(policy: Policy, weights: Weights, samples: Samples) -> Float[Tensor, ""]:
    r"""Return :math:`-\sum_i w_i \log \pi(a_i \mid o_i) A_i`, whose gradient is the policy gradient.

    Ronald Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning".
    """
    likely = policy.log_prob(call(policy, weights, samples.observations), samples.actions)
    return -(samples.weights * samples.advantages * likely).sum()


def surrogate(policy: Policy, weights: Weights, samples: Samples, old: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    r"""Return :math:`-\sum_i w_i \frac{\pi(a_i \mid o_i)}{\pi_\mathrm{old}(a_i \mid o_i)} A_i`.

    Args:
        policy: whose actions are judged.
        weights: of the policy.
        samples: what the old policy did.
        old: the logarithms of the old policy's densities.
    """
    likely = policy.log_prob(call(policy, weights, samples.observations), samples.actions)
    return -(samples.weights * samples.advantages * (likely - old).exp()).sum()


def divergence(policy: Policy, old: Weights, new: Weights, samples: Samples) -> Float[Tensor, ""]:
    """Return the mean KL(old || new) over the observations of samples."""
    before, after = (call(policy, weights, samples.observations) for weights in (old, new))
    return (samples.weights * policy.divergence(before, after)).sum()
