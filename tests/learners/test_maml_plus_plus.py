"""The ideas of "How to train your MAML": what changes with the inner step, and with the share of training."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from kshot.batching import unstack
from kshot.core import Batch, Episode, one_hot
from kshot.learners.ensemble import Ensemble
from kshot.learners.gradient import MAML, MetaLSTM, Reptile
from kshot.losses import mean_squared_error
from kshot.meta_gradient import MetaGradient
from kshot.nets.norm import PerStepNorm, SupportStatisticsNorm
from kshot.tasks.sinusoid import Sinusoids
from kshot.training import train

STEPS, WAYS = 3, 3


def tasks() -> Episode:
    labels = one_hot(torch.arange(WAYS).repeat(2).expand(2, -1), WAYS).double()
    return Episode(*(Batch(torch.randn(2, 2 * WAYS, 6).double() + labels.repeat(1, 1, 2), labels) for _ in range(2)))


def net() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 5), PerStepNorm(5, STEPS), nn.ReLU(), nn.Linear(5, WAYS)).double()
    for rows in (model[1].weight, model[1].bias):
        nn.init.normal_(rows, 0.5)
    return model


def learner(**more: Any) -> MAML:
    return MAML(net(), 0.3, STEPS, adapts=lambda name: not name.startswith("1."), **more)


def losses_by_hand(maml: MAML, task: Episode, order: int = 2, steps: int = STEPS) -> list[Tensor]:
    """Return the query loss after every step; each step's normalisation has its row of scales and shifts."""
    weights = dict(maml.model.named_parameters())
    losses = []
    for step in range(steps):
        told = {"1.step": torch.tensor(min(step, STEPS - 1))}
        loss = F.cross_entropy(functional_call(maml.model, {**weights, **told}, task.support.x), task.support.y)
        gradients = torch.autograd.grad(loss, [weights[n] for n in maml.adapted], create_graph=order == 2)
        stepped = {n: weights[n] - maml.lr * g for n, g in zip(maml.adapted, gradients, strict=True)}
        weights = {**weights, **stepped}
        logits = functional_call(maml.model, {**weights, **told}, task.query.x)
        losses.append(F.cross_entropy(logits, task.query.y))
    return losses


def gradients(maml: MAML, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(maml.model.parameters()))])


def mean_by_hand(maml: MAML, episode: Episode, shares: list[float], order: int = 2) -> Tensor:
    rows = [torch.stack(losses_by_hand(maml, task, order)) for task in unstack(episode)]
    return (torch.stack(rows) @ torch.tensor(shares).double()).mean()


@pytest.mark.parametrize(
    ("progress", "shares"),
    [
        (0.0, [1 / 3, 1 / 3, 1 / 3]),
        (0.05, [1 / 6, 1 / 6, 2 / 3]),
        (0.099, [0.01, 0.01, 0.98]),  # three hundredths of a third, and no less
        (0.1, [0.0, 0.0, 1.0]),
        (1.0, [0.0, 0.0, 1.0]),
    ],
)
@pytest.mark.parametrize("mode", ["mixed", "reverse"])
def test_the_multi_step_loss_fades_into_the_loss_of_the_last_step(
    mode: Any, progress: float, shares: list[float]
) -> None:
    maml, episode = learner(multi_step=0.1, differentiate=mode), tasks()
    maml.at_progress(progress)
    ours, theirs = maml.meta_loss(episode), mean_by_hand(maml, episode, shares)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)  # the buffer of progress is float32
    torch.testing.assert_close(gradients(maml, ours), gradients(maml, theirs), rtol=1e-5, atol=1e-7)


def test_judged_at_every_step_queries_are_still_normalised_by_the_support_set() -> None:
    model = nn.Sequential(nn.Linear(6, 5), SupportStatisticsNorm(5), nn.ReLU(), nn.Linear(5, WAYS)).double()
    maml, episode = MAML(model, 0.3, STEPS, multi_step=0.1), tasks()
    maml.at_progress(0.0)
    x, y = episode.query
    separate = [
        maml.meta_loss(Episode(episode.support, Batch(x[:, i : i + 1], y[:, i : i + 1]))) for i in range(2 * WAYS)
    ]
    torch.testing.assert_close(maml.meta_loss(episode), torch.stack(separate).mean())


def test_each_row_of_a_per_step_norm_is_used_at_its_step_alone() -> None:
    maml, episode = learner(), tasks()
    ours, theirs = maml.meta_loss(episode), mean_by_hand(maml, episode, [0.0, 0.0, 1.0])
    torch.testing.assert_close(gradients(maml, ours), gradients(maml, theirs), rtol=1e-10, atol=1e-12)
    before = ours.item()
    with torch.no_grad():
        maml.model[1].weight[1] += 1
    assert maml.meta_loss(episode).item() != before


def test_further_steps_use_the_last_row() -> None:
    maml, episode = learner(test_steps=STEPS + 2), tasks()
    for parameter in maml.model[1].parameters():
        nn.init.normal_(parameter)  # no row like another
    assert maml.settings["inner steps"] == "5"
    for steps in (STEPS, STEPS + 2):
        by_hand = [losses_by_hand(maml, task, steps=steps)[-1] for task in unstack(episode)]
        torch.testing.assert_close(maml.train(steps == STEPS).task_losses(episode), torch.stack(by_hand))


def test_annealing_leaves_second_derivatives_out_at_first() -> None:
    maml, episode = learner(first_order_until=0.5), tasks()
    last = [0.0, 0.0, 1.0]
    for progress, order in ((0.49, 1), (0.5, 2)):
        maml.at_progress(progress)
        theirs = gradients(maml, mean_by_hand(maml, episode, last, order))
        torch.testing.assert_close(gradients(maml, maml.meta_loss(episode)), theirs, rtol=1e-10, atol=1e-12)
        assert maml.exact_gradient == (order == 2)


def test_where_training_was_is_saved_with_the_weights() -> None:
    saved, other = learner(first_order_until=0.5), learner(first_order_until=0.5)
    saved.at_progress(0.25)
    assert other.exact_gradient
    other.load_state_dict(saved.state_dict())
    assert other.progress.item() == 0.25
    assert not other.exact_gradient
    assert "progress" not in learner().state_dict(), "MAML without a schedule has nothing to add"


def test_a_compiled_step_follows_progress(caplog: pytest.LogCaptureFixture) -> None:
    maml, episode = MAML(nn.Linear(6, WAYS).double(), 0.3, 2, multi_step=0.1), tasks()
    step = MetaGradient(maml, compiled=True)
    for progress in (0.06, 0.09, 1.0):
        maml.at_progress(progress)
        maml.zero_grad()
        loss = step(episode)
        torch.testing.assert_close(loss, maml.meta_loss(episode).detach())
        found = torch.cat([p.grad.flatten() for p in maml.model.parameters()])
        torch.testing.assert_close(found, gradients(maml, maml.meta_loss(episode)), rtol=1e-9, atol=1e-11)
    assert not [r for r in caplog.records if r.name == "kshot"], "it must be the compiled path that is tested"


def test_a_compiled_step_looks_at_the_learners_inside_too() -> None:
    members = [MAML(nn.Linear(6, WAYS).double(), 0.3, 2, multi_step=0.5) for _ in range(2)]
    ensemble, episode = Ensemble(members), tasks()
    step = MetaGradient(ensemble, compiled=True)
    for progress in (0.1, 1.0):
        ensemble.at_progress(progress)
        torch.testing.assert_close(step(episode), ensemble.meta_loss(episode).detach())


def test_an_ensemble_is_as_exact_as_its_members_are_now() -> None:
    ensemble = Ensemble([learner(first_order_until=0.5) for _ in range(2)])
    assert ensemble.exact_gradient
    ensemble.at_progress(0.2)
    assert not ensemble.exact_gradient


@pytest.mark.parametrize("wrapped", [lambda: Reptile(MAML(net(), 0.1), 2), lambda: MetaLSTM(net())])
def test_a_norm_that_would_never_hear_its_step_is_refused(wrapped: Any) -> None:
    with pytest.raises(ValueError, match="PerStepNorm has to be told the step"):
        wrapped()


def test_training_tells_the_learner_how_far_it_is(tmp_path: Path) -> None:
    heard = []

    maml = MAML(nn.Linear(1, 1), 0.01, multi_step=0.5, loss=mean_squared_error)
    before = maml.at_progress
    maml.at_progress = lambda share: (heard.append(share), before(share))[1]  # type: ignore[method-assign]
    train(maml, Sinusoids(3, 3), steps=4, tasks_per_step=2, out=tmp_path)
    assert heard[-5:] == [0.0, 0.25, 0.5, 0.75, 1.0], "whoever goes on with it has what holds at the end"


@pytest.mark.parametrize("more", [{"differentiate": "implicit"}, {"checkpoint_every": 2}])
def test_what_needs_every_step_refuses_what_passes_over_them(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="PerStepNorm"):
        learner(**more)
    with pytest.raises(ValueError, match="multi_step"):
        MAML(nn.Linear(6, WAYS), 0.3, STEPS, multi_step=0.1, **more)
