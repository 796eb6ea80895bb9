import numpy as np
import pytest
import torch

from kshot.core import Episode
from kshot.tasks.labelled import LabelledData
from kshot.tasks.repeated import Repeated
from kshot.tasks.sinusoid import Sinusoids
from kshot.tasks.variable import VariableEpisodes


def keys(tasks: Episode) -> list[float]:
    return [x.sum().item() for x in tasks.support.x]


def test_each_time_through_has_every_task_once_and_an_order_of_its_own() -> None:
    source = Sinusoids(seed=2)
    repeated, expected = Repeated(source, 20), sorted(keys(source.sample(np.arange(20))))
    rounds = [keys(repeated.sample(np.arange(start, start + 20))) for start in (0, 20, 20_000)]
    assert [sorted(one) for one in rounds] == [expected] * 3
    assert rounds[0] != rounds[1] != rounds[2]


def test_item_i_depends_on_seed_and_i_alone() -> None:
    whole = Repeated(Sinusoids(seed=2), 20).sample(np.arange(100))
    some = Repeated(Sinusoids(seed=2), 20).sample(np.array([93, 5, 41]))
    assert torch.equal(whole.support.x[[93, 5, 41]], some.support.x)
    assert not torch.equal(whole.support.x, Repeated(Sinusoids(seed=3), 20).sample(np.arange(100)).support.x)


def test_its_length_is_the_tasks_once_and_its_stamp_says_how_many() -> None:
    assert len(Repeated(Sinusoids(), 7)) == 7
    assert len(Repeated(Sinusoids(), 7, length=30)) == 30
    assert Repeated(Sinusoids(), 7).stamp == {**Sinusoids().stamp, "distinct tasks": "7"}


def test_tasks_of_different_sizes_stay_a_list() -> None:
    data = LabelledData.from_arrays(torch.arange(60.0)[:, None], [c for c in range(6) for _ in range(10)])
    tasks = Repeated(VariableEpisodes(data, ways=(2, 4)), 5).sample(np.arange(10))
    assert isinstance(tasks, list)
    assert len({id(task) for task in tasks}) == 5


def test_no_task_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1; found 0"):
        Repeated(Sinusoids(), 0)
