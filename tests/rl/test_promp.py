"""Proximal meta-policy search: the gradient against plain autograd and finite differences, steps, and resumed runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kshot.batching import unstack
from kshot.finite_differences import finite_difference_error
from kshot.rl.advantages import to_samples
from kshot.rl.collect import collect
from kshot.rl.environments.bandit import Bandit
from kshot.rl.environments.base import Environment
from kshot.rl.environments.navigation import Navigation2D
from kshot.rl.evaluation import adaptation_curve
from kshot.rl.gradient_learner import Setting
from kshot.rl.losses import divergence, surrogate
from kshot.rl.policies import policy_for
from kshot.rl.promp import ProMP
from kshot.rl.seeds import generator_of
from kshot.rl.training import train_policy
from kshot.rl.trajectories import Samples
from kshot.weights import Weights

CASES = [(Navigation2D(horizon=5), 1), (Navigation2D(horizon=5), 2), (Bandit(3, 4), 1), (Navigation2D(horizon=5), 0)]


def small(environment: Environment, lr: float = 0.3, **options: float) -> ProMP:
    torch.manual_seed(0)
    return ProMP(policy_for(environment, (4,), nn.Tanh).double(), lr=lr, **options)  # type: ignore[arg-type]


def samples_of(learner: ProMP, environment: Environment, steps: int) -> tuple[list[Samples], Samples]:
    drawn = {name: one.double() for name, one in environment.draw_tasks(0, np.arange(3)).items()}
    weights, generator, path = [learner.inner.start(3)], generator_of(0, 0), list[Samples]()
    for _ in range(steps + 1):
        path.append(to_samples(collect(environment, learner.policy, weights[-1], drawn, 4, generator)))
        weights.append(learner.inner(weights[-1], path[-1]))
    return path[:-1], path[-1]


def flat(learner: ProMP) -> Tensor:
    return torch.cat([one.detach().flatten() for one in learner.policy.parameters()])


def textbook(learner: ProMP, collected: object) -> Tensor:
    """Return the loss as written: task by task, by autograd through autograd."""
    path, after, old, likely = collected  # type: ignore[misc]
    losses = []
    for task, judged in enumerate(unstack(after)):
        start = weights = dict(learner.policy.named_parameters())
        kept: Weights = {name: one[task] for name, one in old[0].items()}
        seen = [type(one)(*(leaf[task] for leaf in one)) for one in path]
        for samples, before in zip(seen, likely[:-1], strict=True):
            inner = surrogate(learner.policy, weights, samples, before[task])
            gradients = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
            pairs = zip(weights.items(), gradients, strict=True)
            weights = {name: one - learner.inner.lr * gradient for (name, one), gradient in pairs}
        parameters = torch.func.functional_call(learner.policy, weights, (judged.observations,))
        ratio = (learner.policy.log_prob(parameters, judged.actions) - likely[-1][task]).exp()
        bounded = ratio.clamp(1 - learner.clip, 1 + learner.clip)
        gain = torch.minimum(ratio * judged.advantages, bounded * judged.advantages) * judged.weights
        moved = divergence(learner.policy, kept, start, seen[0]) if seen else torch.zeros(())
        losses.append(learner.penalty * moved - gain.sum())
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("environment", "steps"), CASES)
def test_the_meta_gradient_is_that_of_autograd_and_of_finite_differences(environment: Environment, steps: int) -> None:
    learner = small(environment, penalty=0.7)
    collected = learner._collected(*samples_of(learner, environment, steps))
    named = dict(learner.policy.named_parameters())
    weights = list(named.values())
    kept = [{name: one.clone() for name, one in of.items()} for of in collected.weights]
    with torch.no_grad():  # away from where it was collected, so that ratios are not one
        for weight in weights:
            weight += 0.05 * torch.randn(weight.shape, dtype=weight.dtype)
    ours, theirs = learner._meta_loss(collected), textbook(learner, collected._replace(weights=kept))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    found = torch.autograd.grad(ours, weights)
    for one, other in zip(found, torch.autograd.grad(theirs, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    data = {name: one.data for name, one in named.items()}
    gradients = dict(zip(named, found, strict=True))
    assert finite_difference_error(lambda: learner._meta_loss(collected), data, gradients)[0] < 1e-5


def test_an_update_lowers_the_loss_and_starts_where_policies_collected() -> None:
    environment = Navigation2D(horizon=5)
    learner = small(environment)
    path, after = samples_of(learner, environment, 1)
    collected = learner._collected(path, after)
    first = learner._meta_loss(collected).item()
    assert first == pytest.approx(-(after.weights * after.advantages).sum(1).mean().item(), abs=1e-9)  # ratios of one
    outcome = learner.update(path, after)
    assert learner._meta_loss(collected).item() < outcome.loss < first
    assert outcome.divergence > 0


def test_the_penalty_keeps_the_policy_near_the_one_that_collected() -> None:
    moved = []
    for penalty in (0.0, 1e3):
        learner = small(Navigation2D(horizon=5), penalty=penalty)
        before = flat(learner)
        learner.update(*samples_of(learner, Navigation2D(horizon=5), 1))
        moved.append((flat(learner) - before).norm().item())
    assert moved[1] < 0.7 * moved[0]  # Adam takes steps of one size, whatever the gradient


def test_without_an_inner_step_there_is_an_update_too() -> None:
    learner = small(Navigation2D(horizon=5))
    assert learner.update(*samples_of(learner, Navigation2D(horizon=5), 0)).divergence > 0


def test_what_is_not_finite_is_refused_and_moves_nothing() -> None:
    environment = Navigation2D(horizon=5)
    learner = small(environment)
    path, after = samples_of(learner, environment, 1)
    before = flat(learner)
    with pytest.raises(FloatingPointError, match="meta-gradient is not finite"):
        learner.update(path, after._replace(advantages=after.advantages * torch.nan))
    assert torch.equal(before, flat(learner))


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"clip": 0.0}, {"epochs": 0}, {"penalty": -1.0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected lr >= 0, clip > 0"):
        small(Navigation2D(), **wrong)


def test_a_resumed_run_is_the_run_without_a_break(tmp_path: Path) -> None:
    environment, setting = Navigation2D(horizon=6), Setting(tasks=4, trajectories=4, test_rates=(0.1,))
    whole, broken, again = (small(environment) for _ in range(3))
    for learner in (whole, broken, again):
        learner.policy.float()
    train_policy(whole, environment, setting, steps=4, every=2, validation_tasks=3)
    train_policy(broken, environment, setting, steps=2, every=2, validation_tasks=3, out=tmp_path)
    train_policy(again, environment, setting, steps=4, every=2, validation_tasks=3, out=tmp_path, resume=True)
    assert torch.equal(flat(whole), flat(again))
    assert not torch.equal(flat(whole), flat(broken))


def test_training_learns_to_adapt() -> None:
    environment = Navigation2D(horizon=20)
    torch.manual_seed(0)
    learner = ProMP(policy_for(environment, (32,), nn.Tanh))
    learner.optimizer.param_groups[0]["lr"] = 1e-2
    setting = Setting(tasks=10, trajectories=10, test_rates=(0.1,))
    before = adaptation_curve(learner.inner, environment, rates=(0.1,), trajectories=10)
    train_policy(learner, environment, setting, steps=30, every=30, validation_tasks=3)
    after = adaptation_curve(learner.inner, environment, rates=(0.1,), trajectories=10)
    assert after[1].mean - after[1].ci95 > before[1].mean + before[1].ci95
    assert after[1].mean > after[0].mean
