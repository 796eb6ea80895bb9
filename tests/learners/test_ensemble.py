"""A deep ensemble against its members."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, Normal

from kshot.core import Batch, Episode, Learner, one_hot
from kshot.evaluation import compare, evaluate
from kshot.learners.ensemble import Ensemble
from kshot.learners.gradient import MAML, Reptile, Ridge
from kshot.learners.memory import NeuralProcess
from kshot.learners.metric import OpenSet, Prototypical
from kshot.losses import mean_squared_error
from kshot.nets.mlp import MLP
from kshot.tasks.functions import GaussianProcesses
from kshot.tasks.sinusoid import Sinusoids
from kshot.training import train


def waves() -> list[Learner]:
    return [MAML(MLP(1, 8, 1), 0.01, 2, loss=mean_squared_error) for _ in range(3)]


def test_it_predicts_the_mean_of_probabilities() -> None:
    members = [Prototypical(nn.Linear(4, 5)) for _ in range(3)]
    y = one_hot([0, 1, 2, 0, 1, 2], 3).expand(2, -1, -1)
    tasks = Episode(Batch(torch.randn(2, 6, 4), y), Batch(torch.randn(2, 6, 4), y))
    expected = torch.stack([member.predictions(tasks).softmax(-1) for member in members]).mean(0)
    torch.testing.assert_close(Ensemble(members).predictions(tasks).exp(), expected)


def test_it_predicts_the_mean_of_targets() -> None:
    members, tasks = waves(), next(iter(Sinusoids(5, 4).batches(6)))
    expected = torch.stack([member.predictions(tasks) for member in members]).mean(0)
    torch.testing.assert_close(Ensemble(members).predictions(tasks), expected)


def test_it_predicts_the_mean_and_deviation_of_a_mixture_of_gaussians() -> None:
    members, tasks = [NeuralProcess(1, width=8) for _ in range(3)], next(iter(GaussianProcesses(None, 5, 4).batches(6)))
    with torch.no_grad():
        for member in members:  # apart, so that their disagreement counts
            member.decoder.layers[-1].bias += torch.randn(2)
        mean, log_deviation = (
            torch.cat([member.predictions(tasks) for member in members], -1).unflatten(-1, (3, 2)).unbind(-1)
        )
        mixture = MixtureSameFamily(Categorical(torch.ones_like(mean)), Normal(mean, log_deviation.exp()))
        expected = torch.stack([mixture.mean, mixture.stddev.log()], -1)
        torch.testing.assert_close(Ensemble(members).predictions(tasks), expected)


def test_its_members_are_trained_as_if_alone() -> None:
    torch.manual_seed(0)
    members = waves()
    alone = copy.deepcopy(members)
    for learner in (Ensemble(members), *alone):
        train(learner, Sinusoids(5, 5), steps=5, tasks_per_step=3, seed=1)
    for one, other in zip(members, alone, strict=True):
        for together, apart in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-6)


def test_its_squared_error_is_below_the_mean_of_its_members() -> None:
    """The error of a mean is the mean error less the spread of what is averaged."""
    members, tasks = waves(), Sinusoids(5, 20, length=20)
    own = torch.stack([evaluate(member, tasks).scores for member in members]).mean(0)
    predictions = torch.stack([member.predictions(next(iter(tasks.batches(20)))) for member in members])
    spread = predictions.var(0, correction=0).mean((1, 2))
    torch.testing.assert_close(evaluate(Ensemble(members), tasks).scores, own - spread.double(), rtol=1e-4, atol=1e-5)


def test_it_may_be_compared_with_a_member_on_the_same_tasks() -> None:
    members, tasks = waves(), Sinusoids(5, 20, length=20)
    together, alone = evaluate(Ensemble(members), tasks), evaluate(members[0], tasks)
    assert compare(together, alone).tasks == 20
    assert together.stamp["members"] == "3 MAML"
    assert together.stamp["inner steps"] == "2"


def test_flags_follow_the_members() -> None:
    exact, inexact = waves()[0], MAML(MLP(1, 8, 1), 0.01, 1, "first_order", loss=mean_squared_error)
    assert Ensemble([exact, exact]).exact_gradient
    assert not Ensemble([exact, inexact]).exact_gradient
    assert Ensemble([exact, exact]).fixed_ways
    assert not Ensemble([Prototypical(nn.Identity())] * 2).fixed_ways


@pytest.mark.parametrize(
    "members",
    [
        [Prototypical(nn.Identity())],
        [Prototypical(nn.Identity()), Ridge(nn.Identity())],
        [Ridge(nn.Identity()), Ridge(nn.Identity(), mean_squared_error)],
    ],
    ids=["one", "two classes", "two losses"],
)
def test_what_is_no_ensemble_is_refused(members: list[Learner]) -> None:
    with pytest.raises(ValueError, match="two or more learners of one class with one loss"):
        Ensemble(members)


def test_members_have_the_optimizer_that_they_have_alone() -> None:
    members = [Reptile(MAML(nn.Linear(2, 3), 0.1), 1) for _ in range(3)]
    optimizer = Ensemble(members).default_optimizer()
    assert isinstance(optimizer, torch.optim.SGD)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for member in members for parameter in member.parameters()}
    assert {group["lr"] for group in optimizer.param_groups} == {1.0}
    wrapped = OpenSet(members[0])
    assert sum(len(group["params"]) for group in wrapped.default_optimizer().param_groups) == len(
        list(wrapped.parameters())
    )


@pytest.mark.parametrize("wrap", [lambda one: Ensemble([one, waves()[0]]), OpenSet], ids=["ensemble", "open set"])
def test_whether_the_gradient_is_exact_is_loaded_with_the_members(wrap: Callable[[Learner], Learner]) -> None:
    saved, other = (wrap(MAML(MLP(1, 8, 1), 0.01, 2, loss=mean_squared_error, first_order_until=0.5)) for _ in range(2))
    saved.at_progress(0.2)
    assert not saved.exact_gradient
    other.load_state_dict(saved.state_dict())
    assert not other.exact_gradient
    other.at_progress(0.7)
    assert other.exact_gradient
