"""Reptile: what its minibatches are, and what it refuses."""

import copy

import pytest
import torch
from torch import nn

from kshot.batching import unstack
from kshot.core import Batch, Episode, one_hot
from kshot.learners.gradient import MAML, Reptile
from kshot.learners.gradient.update_rules import adam
from kshot.losses import mean_squared_error


def tasks(n: int = 6) -> Episode:
    x = torch.randn(3, n, 4).double()
    y = one_hot(torch.arange(n).expand(3, -1) % 2, 2).double()
    return Episode(Batch(x, y), Batch(x + 0.1, y))


def test_minibatches_show_each_example_once_before_any_twice() -> None:
    learner = Reptile(MAML(nn.Linear(12, 1, bias=False), 1.0, loss=mean_squared_error), steps=4, batch_size=3)
    examples = Batch(torch.eye(12), torch.zeros(12, 1))
    seen = [batch.x for batch in learner._batches(examples)]
    assert [len(batch) for batch in seen] == [3, 3, 3, 3]
    torch.testing.assert_close(torch.cat(seen).sum(0), torch.ones(12))


def test_minibatches_differ_between_tasks_and_steps_but_not_between_runs() -> None:
    learner = Reptile(MAML(nn.Linear(4, 2), 0.1, 3, "first_order"), steps=3, batch_size=4).double()
    alike = Episode(*(Batch(batch.x[:1].expand(3, -1, -1), batch.y) for batch in tasks()))
    losses = []
    for _ in range(2):
        torch.manual_seed(1)
        losses.append(learner.task_losses(alike))
    assert torch.equal(*losses)
    assert len(set(losses[0].tolist())) == 3


def test_it_learns_to_learn_faster_than_its_start() -> None:
    torch.manual_seed(0)
    learner = Reptile(MAML(nn.Linear(4, 2), 0.5, 4, "first_order"), steps=4)
    shift = torch.tensor([3.0, 0.0, 0.0, 0.0])

    def drawn() -> Episode:
        y = one_hot(torch.arange(8).expand(4, -1) % 2, 2)
        x = 0.3 * torch.randn(4, 8, 4) + (y[..., :1] - 0.5) * shift
        return Episode(Batch(x[:, :2], y[:, :2]), Batch(x[:, 2:], y[:, 2:]))

    def query_loss() -> float:
        held_out = drawn()
        predictions = learner.predictions(held_out)
        return (
            torch.stack([learner.loss(*pair) for pair in zip(predictions, held_out.query.y, strict=True)]).mean().item()
        )

    before = query_loss()
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    for _ in range(20):
        optimizer.zero_grad()
        learner.meta_loss(drawn()).backward()
        optimizer.step()
    assert query_loss() < before / 3


def test_the_tail_is_first_order_maml_on_a_batch_of_its_own() -> None:
    learner = Reptile(MAML(nn.Linear(4, 2), 0.1, 3, "first_order"), steps=3, batch_size=4, tail=True).double()
    task = unstack(tasks())[0]
    torch.manual_seed(1)
    batches = list(learner._batches(Batch(*(torch.cat(parts) for parts in zip(*task, strict=True)))))
    model = copy.deepcopy(learner.learner.model)
    for batch in batches:
        loss = learner.loss(model(batch.x), batch.y)
        last = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(model.parameters(), last, strict=True):
                weight -= 0.1 * gradient
    torch.manual_seed(1)
    learner.task_loss(task).backward()
    for weight, gradient in zip(learner.learner.model.parameters(), last, strict=True):
        torch.testing.assert_close(weight.grad, 0.1 * gradient)


def test_a_frozen_encoder_is_taken() -> None:
    Reptile(MAML(nn.Linear(4, 2), 0.1, encoder=nn.Linear(4, 4).requires_grad_(False)), steps=1)


def test_parameters_that_nothing_would_train_are_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder\.weight would never be trained"):
        Reptile(MAML(nn.Linear(4, 2), 0.1, encoder=nn.Linear(4, 4, bias=False)), steps=1)


@pytest.mark.parametrize("counts", [(0, None), (-1, None), (1, 0)])
def test_training_that_would_do_nothing_is_refused(counts: tuple[int, int | None]) -> None:
    with pytest.raises(ValueError, match="steps and batch_size of at least 1"):
        Reptile(MAML(nn.Linear(4, 2), 0.1), *counts)


def test_what_is_wrapped_stays_as_it_was() -> None:
    inner = MAML(nn.Linear(4, 2), 1e-3, 3, "first_order", rule=adam((0.0, 0.999)))
    one, other = Reptile(inner, steps=2), Reptile(inner, steps=2)
    one.double().meta_loss(tasks()).backward()
    assert all(slot.grad is not None for slot in one.carried.parameters())
    assert all(slot.grad is None for slot in other.carried.parameters())
    assert inner.rule.init is not one.learner.rule.init


def test_without_an_optimizer_training_moves_the_start_all_the_way() -> None:
    (group,) = Reptile(MAML(nn.Linear(4, 2), 0.1, 3), steps=2).default_optimizer().param_groups
    assert group["lr"] == 1
    assert group["momentum"] == 0


def test_moments_are_carried_to_the_next_task_and_to_a_copy() -> None:
    learner = Reptile(MAML(nn.Linear(4, 2), 1e-3, 3, "first_order", rule=adam((0.0, 0.999))), steps=5).double()
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    learner.meta_loss(tasks()).backward()
    optimizer.step()
    seen = 1 - 0.999**5  # of all the weight that a running mean gives to what comes
    (carried, *_) = learner.carried["square_ones"]
    torch.testing.assert_close(carried.item(), seen)
    assert all((slot > 0).any() for slot in learner.carried["square"])
    twin = copy.deepcopy(learner)
    with torch.no_grad():
        learner.carried["square"][0].mul_(100)  # a hundred times the squares are a tenth of the step
    support = Batch(*(part[0] for part in tasks().support))
    ends = [one.adapt(support) for one in (learner, twin)]
    assert not torch.equal(*(end["weight"] for end in ends))
