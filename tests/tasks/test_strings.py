import numpy as np
import pytest
import torch

from kshot.losses import strings
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import LabelledData
from kshot.tasks.strings import StringLabels
from kshot.tasks.variable_ways import VariableWays


def tasks(characters: int = 5) -> StringLabels:
    data = LabelledData.from_arrays(torch.arange(48.0)[:, None], torch.arange(48) % 8)
    return StringLabels(Episodes(data, 6, 2, 3, seed=4), characters)


def test_each_class_of_a_task_has_a_string_of_its_own() -> None:
    plain, told = tasks().tasks.sample(np.arange(20)), tasks().sample(np.arange(20))
    for one, other in zip(plain, told, strict=True):
        torch.testing.assert_close(one.x, other.x)
        assert (other.y.reshape(20, -1, 5, 5).sum(-1) == 1).all()
        same = (other.y[:, :, None] == other.y[:, None]).all(-1)
        torch.testing.assert_close(same, (one.y[:, :, None] == one.y[:, None]).all(-1))
    # All letters come at every place.
    assert (told.support.y.reshape(-1, 5, 5).mean(0) > 0.05).all()


def test_an_item_depends_on_seed_and_number_alone() -> None:
    whole = tasks().sample(np.arange(10))
    torch.testing.assert_close(tasks().sample(np.array([7])).support.y[0], whole.support.y[7])


def test_tasks_of_any_number_of_classes_have_strings() -> None:
    data = LabelledData.from_arrays(torch.arange(48.0)[:, None], torch.arange(48) % 8)
    plain = VariableWays(data, (2, 6), 2, 3, seed=4, group=4)
    told = StringLabels(plain)
    stacked, mixed = told.sample(np.arange(4)), told.sample(np.arange(12))
    assert isinstance(mixed, list)
    assert len({len(task.support.y) for task in mixed}) > 1
    for i, (one, other) in enumerate(zip(plain.sample(np.arange(12)), mixed, strict=True)):
        same = (other.support.y[:, None] == other.support.y).all(-1)
        torch.testing.assert_close(same, (one.support.y[:, None] == one.support.y).all(-1))
        if i < 4:  # of one meta-batch
            torch.testing.assert_close(stacked.query.y[i], other.query.y)


def test_too_few_strings_are_refused() -> None:
    with pytest.raises(ValueError, match="make 5 strings; found 6 ways"):
        tasks(characters=1)


def test_a_string_is_right_where_every_character_is() -> None:
    y = torch.eye(5)[[0, 1, 2, 3, 4]].flatten()[None].repeat(4, 1)
    logits = 9 * y.clone()
    logits[1, :5] = torch.tensor([0.0, 9, 0, 0, 0])  # one wrong character
    y[3] = 0  # unlabelled
    logits[3] = 0
    assert strings.metric(logits, y).item() == pytest.approx(2 / 3)
    expected = torch.nn.functional.cross_entropy(logits[:3].reshape(15, 5), y[:3].reshape(15, 5).argmax(-1))
    torch.testing.assert_close(strings(logits, y), expected)
    torch.testing.assert_close(strings.weight(y), torch.tensor([1.0, 1.0, 1.0, 0.0]))


def test_dealt_letters_are_had_by_one_of_every_five_classes() -> None:
    data = LabelledData.from_arrays(torch.arange(48.0)[:, None], torch.arange(48) % 12)
    plain = VariableWays(data, (5, 12), 1, 1, seed=4, group=1)
    told = StringLabels(plain, dealt=True)
    drawn = set()
    for one, other in zip(plain.sample(np.arange(40)), told.sample(np.arange(40)), strict=True):
        own = (one.support.y.mT @ other.support.y).reshape(-1, 5, 5)  # of each class: letters by place
        assert (own.sum(-1) == 1).all()
        for five in own.split(5):
            letters = five.sum(0)
            assert (letters == 1).all() if len(five) == 5 else (letters <= 1).all()
        drawn.update(map(tuple, own.argmax(-1).tolist()))
    assert len(drawn) > 200
    torch.testing.assert_close(told[7].support.y, StringLabels(plain, dealt=True).sample(np.arange(9))[7].support.y)
    assert "dealt evenly" in told.stamp["labels"]
