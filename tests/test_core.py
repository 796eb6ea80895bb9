import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kshot import core
from kshot.batching import unstack
from kshot.core import Batch, Episode, Learner, one_hot
from kshot.learners.metric import Prototypical
from kshot.losses import cross_entropy


def stacked_tasks(t: int = 3, ways: int = 4, shots: int = 2, queries: int = 3) -> Episode:
    def batch(k: int) -> Batch:
        labels = torch.arange(ways).repeat(k).expand(t, -1)
        return Batch(torch.randn(t, ways * k, 5), one_hot(labels, ways))

    return Episode(batch(shots), batch(queries))


class CountsCalls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[torch.Size] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(x.shape)
        return x


def test_encoder_runs_once_on_the_flat_meta_batch() -> None:
    encoder = CountsCalls()
    Prototypical(encoder).meta_loss(stacked_tasks())
    assert encoder.calls == [torch.Size([3 * (8 + 12), 5])]


def test_a_list_of_tasks_gives_the_losses_of_the_stack() -> None:
    tasks, learner = stacked_tasks(), Prototypical(nn.Linear(5, 3))
    torch.testing.assert_close(learner.task_losses(unstack(tasks)), learner.task_losses(tasks))


def test_ragged_tasks_come_as_a_list() -> None:
    tasks = [unstack(stacked_tasks(1, ways, shots))[0] for ways, shots in ((2, 1), (5, 3))]
    learner = Prototypical(nn.Linear(5, 3))
    apart = [learner.task_losses([task])[0] for task in tasks]
    torch.testing.assert_close(learner.task_losses(tasks), torch.stack(apart))
    assert [tuple(p.shape) for p in learner.predictions(tasks)] == [(6, 2), (15, 5)]


def test_inputs_may_be_pytrees() -> None:
    class FirstColumn(Learner):
        def encode(self, x: dict[str, Tensor]) -> Tensor:
            return x["tokens"] * x["mask"]

        def adapt(self, support: Batch) -> Tensor:
            return support.y.mT @ support.x

        def predict(self, state: Tensor, x: Tensor) -> Tensor:
            return x @ state.mT

    plain = stacked_tasks()
    dressed = Episode(*(Batch({"tokens": b.x, "mask": torch.ones_like(b.x)}, b.y) for b in plain))
    assert FirstColumn().task_losses(dressed).shape == (3,)


class Branches(Learner):
    """Control flow that depends on data, which vmap cannot follow."""

    def adapt(self, support: Batch) -> Tensor:
        return support.x.mean(0) if support.x.sum() > 0 else -support.x.mean(0)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return (x * state)[:, :4]


def test_an_operation_without_a_batching_rule_falls_back_to_the_loop_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks = stacked_tasks()
    with caplog.at_level(logging.WARNING, "kshot"):
        first, second = Branches().task_losses(tasks), Branches().task_losses(tasks)
    torch.testing.assert_close(first, Branches().task_losses(unstack(tasks)))
    torch.testing.assert_close(first, second)
    assert len(caplog.records) == 1
    assert "data-dependent control flow" in caplog.text


def test_a_fallback_without_a_reason_is_logged_by_its_kind(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(Branches):
        def adapt(self, support: Batch) -> Tensor:
            if torch._C._functorch.is_batchedtensor(support.x):
                raise NotImplementedError
            return support.x.mean(0)

    with caplog.at_level(logging.WARNING, "kshot"):
        assert Silent().task_losses(stacked_tasks()).shape == (3,)
    assert "NotImplementedError" in caplog.text


def test_a_fault_in_a_learner_is_shown_by_its_own_error() -> None:
    class Broken(Branches):
        def adapt(self, support: Batch) -> Tensor:
            return support.x @ support.x

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Broken().meta_loss(stacked_tasks())


def test_unlabelled_rows_weigh_nothing_in_the_loss() -> None:
    logits, y = torch.randn(4, 3), one_hot([0, 1, 2, 0], 3)
    padded = torch.cat([y, torch.zeros(2, 3)])
    more = torch.cat([logits, torch.randn(2, 3)])
    torch.testing.assert_close(cross_entropy(more, padded), cross_entropy(logits, y))
    torch.testing.assert_close(cross_entropy.metric(more, padded), cross_entropy.metric(logits, y))


def test_a_support_set_may_show_examples_without_targets() -> None:
    class First(Learner):
        def adapt(self, support: Batch) -> Tensor:
            return support.x[0, :4]

        def predict(self, state: Tensor, x: Tensor) -> Tensor:
            return state.expand(len(x), -1)

    tasks = replace_y(stacked_tasks(), support=torch.zeros(3, 8, 0))
    torch.testing.assert_close(First().task_losses(tasks), First().task_losses(unstack(tasks)))


def replace_y(tasks: Episode, **ys: Tensor) -> Episode:
    return Episode(*(b._replace(y=ys.get(name, b.y)) for name, b in zip(("support", "query"), tasks, strict=True)))


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (replace_y(stacked_tasks(), support=torch.zeros(3, 8, dtype=torch.long)), r"Use one_hot\(labels, ways\)"),
        (replace_y(stacked_tasks(), query=torch.zeros(3, 12, 7)), "found 4 and 7"),
        (replace_y(stacked_tasks(), query=torch.zeros(3, 12, 0)), "found 4 and 0"),
        (replace_y(stacked_tasks(), support=torch.zeros(3, 5, 4)), r"found x \(3, 8, 5\) and y \(3, 5, 4\)"),
        (unstack(stacked_tasks())[0], "Stack tasks along a leading axis"),
        ([stacked_tasks()], r"found shape \(3, 8, 4\)"),
        (Episode(stacked_tasks(2).support, stacked_tasks(3).query), "found 2 and 3"),
        (
            Episode(stacked_tasks().support, Batch(torch.zeros(3, 12, 9), stacked_tasks().query.y)),
            r"and \(9,\)\. Resize",
        ),
    ],
)
def test_a_task_of_the_wrong_shape_says_what_was_expected(tasks: Episode, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prototypical(nn.Identity()).meta_loss(tasks)


def test_no_task_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one task; found an empty list"):
        Prototypical(nn.Identity()).meta_loss([])
    with pytest.raises(ValueError, match="at least one task; found stacked tasks"):
        Prototypical(nn.Identity()).meta_loss(stacked_tasks(0))


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (Episode(*map(tuple, stacked_tasks())), "found Episode of tuple, tuple"),
        ([Episode(*map(tuple, unstack(stacked_tasks())[0]))], "found Episode of tuple, tuple"),
        ([Episode(*(Batch(x, y.numpy()) for x, y in unstack(stacked_tasks())[0]))], "found a ndarray"),
    ],
)
def test_an_episode_of_something_else_than_batches_of_tensors_is_refused(tasks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prototypical(nn.Identity()).meta_loss(tasks)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (unstack(stacked_tasks())[0].support, "found Batch of Tensor, Tensor"),  # the support set of a plain pair
        (tuple(unstack(stacked_tasks())[0]), "found tuple of Batch, Batch"),
        (1, "found int"),
    ],
)
def test_what_is_no_episode_is_refused(task: Any, message: str) -> None:
    # Not by meta_loss, whose annotation is checked in tests.
    with pytest.raises(ValueError, match=message):
        core._check_kind(task)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0.5], "labels.long"), ([0, 5], "found 0 .. 5"), ([-1], "Renumber them from 0")],
)
def test_one_hot_refuses_what_are_no_labels(labels: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_hot(labels, 5)


def test_one_hot_takes_any_leading_shape() -> None:
    assert one_hot(torch.zeros(2, 3, dtype=torch.long), 4).shape == (2, 3, 4)
