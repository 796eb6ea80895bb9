"""Distributions agree with those of torch.distributions, and their metric with the Hessian of the divergence."""

import pytest
import torch
from torch.distributions import Independent, Normal, OneHotCategorical, kl_divergence
from torch.func import hessian

from kshot.rl.policies import CategoricalPolicy, GaussianPolicy, Parameters, Policy
from kshot.rl.seeds import generator_of

POLICIES = [GaussianPolicy(3, 2, (5,)).double(), CategoricalPolicy(3, 4, (5,)).double()]


def name_of(policy: Policy) -> str:
    return type(policy).__name__


def reference(policy: Policy, parameters: Parameters) -> torch.distributions.Distribution:
    if isinstance(policy, GaussianPolicy):
        return Independent(Normal(parameters[0], parameters[1].exp()), 1)
    return OneHotCategorical(logits=parameters[0])


def parameters_of(policy: Policy, seed: int) -> Parameters:
    random = torch.Generator().manual_seed(seed)
    size = 2 if isinstance(policy, GaussianPolicy) else 4
    drawn = [torch.randn(6, size, generator=random, dtype=torch.float64) for _ in "12"]
    return (drawn[0], 0.3 * drawn[1]) if isinstance(policy, GaussianPolicy) else (drawn[0],)


@pytest.mark.parametrize("policy", POLICIES, ids=name_of)
def test_log_probabilities_and_divergences_are_those_of_torch(policy: Policy) -> None:
    old, new = parameters_of(policy, 0), parameters_of(policy, 1)
    actions = reference(policy, old).sample()
    assert torch.allclose(policy.log_prob(new, actions), reference(policy, new).log_prob(actions))
    expected = kl_divergence(reference(policy, old), reference(policy, new))
    assert torch.allclose(policy.divergence(old, new), expected)


@pytest.mark.parametrize("policy", POLICIES, ids=name_of)
def test_the_metric_is_the_hessian_of_the_divergence(policy: Policy) -> None:
    old, tangent = parameters_of(policy, 0), parameters_of(policy, 2)
    blocks = hessian(lambda new: policy.divergence(old, new).sum())(old)
    product = policy.metric(old, tangent)
    for i, row in enumerate(blocks):
        expected = sum(torch.einsum("abcd,cd->ab", block, t) for block, t in zip(row, tangent, strict=True))
        assert torch.allclose(product[i], expected)


@pytest.mark.parametrize("policy", POLICIES, ids=name_of)
def test_samples_have_the_mean_of_the_distribution(policy: Policy) -> None:
    parameters = tuple(one[:2, None].expand(2, 20_000, -1) for one in parameters_of(policy, 0))
    drawn = policy.sample(parameters, generator_of(0, 0))
    expected = reference(policy, tuple(one[:, 0] for one in parameters)).mean
    assert torch.allclose(drawn.mean(1), expected, atol=0.05)


def test_one_deviation_serves_all_observations_and_is_a_parameter() -> None:
    policy = GaussianPolicy(3, 2)
    _, log_std = policy(torch.randn(4, 3))
    assert torch.equal(log_std, torch.zeros(4, 2))
    assert "log_std" in dict(policy.named_parameters())
