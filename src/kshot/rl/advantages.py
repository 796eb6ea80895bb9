"""From rewards to advantages: discounted returns, a linear baseline, and generalised advantage estimation."""

import torch
from jaxtyping import Float
from torch import Tensor

from kshot.rl.trajectories import Samples, Trajectories

__all__ = ["advantage_estimates", "discounted_returns", "linear_baseline", "to_samples", "trial_advantages"]


def discounted_returns(rewards: Float[Tensor, "*tasks time n"], discount: float) -> Float[Tensor, "*tasks time n"]:
    r"""Return :math:`\sum_{k \ge 0} \gamma^k r_{t+k}` for each step.

    >>> discounted_returns(torch.ones(3, 1), 0.5)[:, 0]
    tensor([1.7500, 1.5000, 1.0000])
    """
    following = torch.zeros_like(rewards[..., 0, :])
    returns = []
    for reward in reversed(rewards.unbind(-2)):
        following = reward + discount * following
        returns.append(following)
    return torch.stack(returns[::-1], -2)


def advantage_estimates(
    rewards: Float[Tensor, "*tasks time n"], values: Float[Tensor, "*tasks time n"], discount: float, decay: float
) -> Float[Tensor, "*tasks time n"]:
    r"""Return :math:`\sum_k (\gamma\lambda)^k \delta_{t+k}`, :math:`\delta_t = r_t + \gamma V_{t+1} - V_t`.

    John Schulman et al. 2016, "High-dimensional continuous control using generalized advantage estimation".

    Args:
        rewards: zero behind the end of a trajectory.
        values: of the baseline, zero behind the end; the value behind the last step is zero too.
        discount: gamma.
        decay: lambda; at one this is the discounted return less the value.
    """
    following = torch.cat([values[..., 1:, :], torch.zeros_like(values[..., :1, :])], -2)
    return discounted_returns(rewards + discount * following - values, discount * decay)


def trial_advantages(
    rewards: Float[Tensor, "time n"],
    values: Float[Tensor, "time n"],
    mask: Float[Tensor, "time n"],
    discount: float,
    decay: float,
) -> Float[Tensor, "time n"]:
    """Return ``advantage_estimates`` of trials whose episodes may end early: as if steps without a mask were not there.

    What an episode is worth for those that follow it must pass over the steps behind its end undiminished.

    Args:
        rewards: of all steps of each trial.
        values: likewise.
        mask: zero for steps behind the end of an episode; their advantage is zero.
        discount: gamma.
        decay: lambda.
    """
    advantage = value = torch.zeros_like(rewards[0])
    found = []
    for reward, now, on in zip(rewards.flip(0), values.flip(0), mask.flip(0) > 0, strict=True):
        estimate = reward + discount * value - now + discount * decay * advantage
        advantage, value = estimate.where(on, advantage), now.where(on, value)
        found.append(estimate.where(on, 0))
    return torch.stack(found[::-1])


def linear_baseline(
    trajectories: Trajectories, returns: Float[Tensor, "*tasks time n"], penalty: float = 1e-5
) -> Float[Tensor, "*tasks time n"]:
    r"""Fit the returns of each task by ridge regression, and return the fitted values.

    The features of a step are :math:`[o, o^2, t, t^2, t^3, 1]` with o clipped to [-10, 10] and t in hundreds of steps
    (Yan Duan et al. 2016, "Benchmarking deep reinforcement learning for continuous control").
    """
    mask = trajectories.mask.double()
    seen = trajectories.observations.double().clamp(-10, 10)
    time = torch.arange(seen.shape[-3], dtype=seen.dtype)[:, None, None].expand(*seen.shape[:-1], 1) / 100
    features = torch.cat([seen, seen.square(), time, time**2, time**3, torch.ones_like(time)], -1)
    features = features * mask[..., None]
    x, y = features.flatten(-3, -2), (returns * mask).flatten(-2, -1)[..., None]
    system = x.mT @ x + penalty * torch.eye(
        x.shape[-1], dtype=x.dtype
    )  # float64: the powers of time are nearly dependent
    values: Tensor = x @ torch.linalg.solve(system, x.mT @ y)
    return values.reshape(returns.shape).to(returns)


def to_samples(trajectories: Trajectories, discount: float = 0.99, decay: float = 1.0) -> Samples:
    """Return the steps of trajectories with their advantages, which have mean zero and deviation one in each task.

    Args:
        trajectories: of one task, or stacked of many; the baseline is fitted to each task alone.
        discount: gamma.
        decay: lambda of the advantage estimates.
    """
    mask = trajectories.mask
    returns = discounted_returns(trajectories.rewards, discount)
    values = linear_baseline(trajectories, returns)
    raw = advantage_estimates(trajectories.rewards, values, discount, decay).flatten(-2, -1)
    weights = mask.flatten(-2, -1)
    weights = weights / weights.sum(-1, keepdim=True)
    centred = raw - (raw * weights).sum(-1, keepdim=True)
    deviation = (centred.square() * weights).sum(-1, keepdim=True).sqrt()
    advantages = centred / (deviation + 1e-8) * mask.flatten(-2, -1)
    observations, actions = (each.flatten(-3, -2) for each in trajectories[:2])
    return Samples(observations, actions, advantages, weights)
