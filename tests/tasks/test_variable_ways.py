import numpy as np
import pytest
import torch

from kshot.core import Episode
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import LabelledData
from kshot.tasks.variable_ways import VariableWays


def data() -> LabelledData:
    return LabelledData.from_arrays(torch.arange(90.0)[:, None], torch.arange(90) % 9)


def test_a_group_stacks_and_is_what_episodes_of_its_ways_would_be() -> None:
    tasks = VariableWays(data(), (2, 9), 2, 3, seed=5, group=4)
    ways = set()
    for start in range(0, 200, 4):
        group = np.arange(start, start + 4)
        drawn = tasks.sample(group)
        assert isinstance(drawn, Episode)
        count = drawn.support.y.shape[-1]
        expected = Episodes(data(), count, 2, 3, seed=5).sample(group)
        assert torch.equal(drawn.support.x, expected.support.x)
        assert torch.equal(drawn.query.y, expected.query.y)
        ways.add(count)
    assert ways == set(range(2, 10))


def test_tasks_of_two_groups_are_a_list_of_the_same_tasks() -> None:
    tasks = VariableWays(data(), (2, 9), 1, 1, group=4)
    mixed = tasks.sample(np.arange(2, 10))
    assert isinstance(mixed, list)
    for item, task in zip(range(2, 10), mixed, strict=True):
        assert torch.equal(task.support.x, tasks[item].support.x)
    assert len({task.support.y.shape[-1] for task in mixed}) > 1


def test_empty_ranges_and_too_many_ways_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found \(4, 3\)"):
        VariableWays(data(), (4, 3), 1)
    with pytest.raises(ValueError, match="group at least 1"):
        VariableWays(data(), (2, 3), 1, group=0)
    with pytest.raises(ValueError, match="10"):
        VariableWays(data(), (2, 10), 1)


def test_the_stamp_says_the_ways_once() -> None:
    data = LabelledData.from_arrays(torch.arange(60.0)[:, None], torch.arange(60) % 20)
    stamp = VariableWays(data, ways=(2, 20), shots=1, queries=1, group=4).stamp
    assert stamp["tasks"] == "2- to 20-way 1-shot, 1 queries a class, one number of ways for 4 consecutive tasks"
    assert "ways" not in stamp
