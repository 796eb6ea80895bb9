import numpy as np
import pytest
import torch

from kshot.core import Episode
from kshot.learners.memory import NeuralProcess
from kshot.tasks.copying import Copy
from kshot.tasks.functions import GaussianProcesses
from kshot.tasks.sinusoid import Sinusoids
from kshot.tasks.variable_shots import VariableShots
from kshot.training import train


def test_the_tasks_of_a_group_keep_as_many_and_stack() -> None:
    source = Sinusoids(shots=10, queries=3)
    tasks = VariableShots(source, (0, 10), group=4)
    sizes = tasks.sizes(np.arange(8000)).reshape(-1, 4)
    assert (sizes == sizes[:, :1]).all()
    assert np.bincount(sizes[:, 0], minlength=11).min() > 130  # of 2,000 / 11
    whole, kept = source.sample(np.arange(4, 8)), tasks.sample(np.arange(4, 8))
    assert isinstance(kept, Episode)
    assert torch.equal(kept.support.y, whole.support.y[:, : sizes[1, 0]])
    assert torch.equal(kept.support.x, whole.support.x[:, : sizes[1, 0]])
    assert torch.equal(kept.query.y, whole.query.y)


def test_tasks_of_several_groups_are_a_list_of_the_same_tasks() -> None:
    tasks = VariableShots(GaussianProcesses(shots=10, queries=3), (0, 10), group=2)
    listed = tasks.sample(np.arange(12))
    assert isinstance(listed, list)
    assert len({len(task.support.y) for task in listed}) > 1
    for i, task in enumerate(listed):
        torch.testing.assert_close(task, tasks[i])
    train(NeuralProcess(1, width=8), tasks, steps=2, tasks_per_step=3)


@pytest.mark.parametrize("wrong", [((3, 2), 4), ((-1, 2), 4), ((0, 2), 0), ((0, 11), 4)])
def test_what_cannot_be_cut_is_refused(wrong: tuple[tuple[int, int], int]) -> None:
    with pytest.raises(ValueError, match=r"found"):
        VariableShots(Sinusoids(shots=10), *wrong)


def test_a_source_that_may_be_too_small_is_refused_when_it_is() -> None:
    tasks = VariableShots(VariableShots(Sinusoids(shots=10, seed=2), (0, 10)), (5, 5))
    small = tasks.source.sizes(np.arange(160)) < 5  # type: ignore[attr-defined]
    assert not small[0]
    with pytest.raises(ValueError, match=r"at least 5 support examples; found [0-4] examples"):
        tasks.sample(np.flatnonzero(small)[:1])


def test_a_source_of_several_sizes_is_refused_when_it_has_them() -> None:
    tasks = VariableShots(Copy((5, 9), same_length=1), (0, 5))
    with pytest.raises(ValueError, match="found tasks of several sizes"):
        tasks.sample(np.arange(16))
