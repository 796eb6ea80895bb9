"""Returns, baseline and advantages against the sums and the regression that they stand for."""

import numpy as np
import torch

from kshot.rl.advantages import advantage_estimates, discounted_returns, linear_baseline, to_samples
from kshot.rl.trajectories import Trajectories


def ragged(seed: int = 0) -> Trajectories:
    """Return two tasks of three trajectories that end after 7, 4 and 2 steps."""
    random = torch.Generator().manual_seed(seed)
    mask = (torch.arange(7)[:, None] < torch.tensor([7, 4, 2])).double().expand(2, 7, 3)
    seen, actions = (torch.randn(2, 7, 3, 2, generator=random, dtype=torch.float64) for _ in "12")
    return Trajectories(seen, actions, torch.randn(2, 7, 3, generator=random, dtype=torch.float64) * mask, mask)


def test_returns_are_the_naive_sums() -> None:
    rewards = ragged().rewards
    expected = torch.stack([sum(0.9**k * rewards[:, t + k] for k in range(7 - t)) for t in range(7)], 1)
    assert torch.allclose(discounted_returns(rewards, 0.9), expected)


def test_advantages_are_the_naive_sums() -> None:
    found, values = ragged(), torch.randn(2, 7, 3, dtype=torch.float64) * ragged().mask
    padded = torch.cat([values, torch.zeros(2, 1, 3, dtype=torch.float64)], 1)
    deltas = found.rewards + 0.9 * padded[:, 1:] - values
    expected = torch.stack([sum((0.9 * 0.8) ** k * deltas[:, t + k] for k in range(7 - t)) for t in range(7)], 1)
    assert torch.allclose(advantage_estimates(found.rewards, values, 0.9, 0.8), expected)
    whole = advantage_estimates(found.rewards, values, 0.9, 1.0)
    assert torch.allclose(whole, discounted_returns(found.rewards, 0.9) - values)


def test_the_baseline_is_a_regression_on_the_steps_of_each_task_alone() -> None:
    found = ragged()
    returns = discounted_returns(found.rewards, 0.99)
    values = linear_baseline(found, returns, penalty=1e-5)
    for task in range(2):
        rows, targets = [], []
        for t in range(7):
            for n in range(3):
                if found.mask[task, t, n]:
                    o = found.observations[task, t, n].numpy()
                    rows.append([*o, *o**2, t / 100, (t / 100) ** 2, (t / 100) ** 3, 1.0])
                    targets.append(returns[task, t, n].item())
        x = np.array(rows)
        stacked = np.concatenate([x, 1e-5**0.5 * np.eye(x.shape[1])])  # ridge as least squares
        w = np.linalg.lstsq(stacked, np.concatenate([targets, np.zeros(x.shape[1])]))[0]
        assert np.allclose(values[task][found.mask[task] > 0].numpy(), x @ w, atol=1e-6)
        assert (values[task][found.mask[task] == 0] == 0).all()


def test_samples_are_standardised_and_count_nothing_behind_the_end() -> None:
    samples = to_samples(ragged())
    weights, advantages = samples.weights, samples.advantages
    assert torch.allclose(weights.sum(-1), torch.ones(2, dtype=torch.float64))
    assert torch.allclose((weights * advantages).sum(-1), torch.zeros(2, dtype=torch.float64), atol=1e-9)
    assert torch.allclose((weights * advantages**2).sum(-1), torch.ones(2, dtype=torch.float64), atol=1e-6)
    behind = ragged().mask.flatten(-2, -1) == 0
    assert (weights[behind] == 0).all()
    assert (advantages[behind] == 0).all()


def test_what_lies_behind_the_end_changes_nothing() -> None:
    found = ragged()
    changed = found._replace(observations=found.observations + 5 * (1 - found.mask[..., None]))
    one, other = to_samples(found), to_samples(changed)
    assert torch.allclose(one.advantages, other.advantages)
