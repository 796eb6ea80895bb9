"""Minibatches, tasks without labels, and known tasks that tell their number."""

import sys

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from kshot.tasks.augment import Chain, Crops, Distortions
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import LabelledData
from kshot.tasks.minibatches import Minibatches
from kshot.tasks.numbered import NumberedTasks
from kshot.tasks.sinusoid import Sinusoids
from kshot.tasks.unsupervised import Instances, clustered


def pictures(n: int = 20) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8)


def test_minibatches_go_through_the_data_once_an_epoch_in_another_order() -> None:
    data = LabelledData.from_arrays(torch.arange(10.0)[:, None], torch.arange(10) // 2)
    epochs = [Minibatches(data, 5).sample(np.arange(2 * e, 2 * e + 2)).query for e in (0, 1)]
    for x, y in epochs:
        assert x.flatten().sort().values.tolist() == list(range(10))
        assert torch.equal(y.argmax(-1), x[..., 0].long() // 2)
    assert not torch.equal(epochs[0].x, epochs[1].x)


def test_a_minibatch_depends_on_seed_and_number_alone() -> None:
    data = LabelledData.from_arrays(pictures(), torch.arange(20) % 4)
    some = Minibatches(data, 6, seed=3, augment=Distortions())
    alone = Minibatches(data, 6, seed=3, augment=Distortions())[7].query.x
    assert torch.equal(some.sample(np.array([4, 7])).query.x[1], alone)
    assert not torch.equal(Minibatches(data, 6, seed=4, augment=Distortions())[7].query.x, alone)


def test_turns_are_classes_where_they_are_in_tasks() -> None:
    x = (255 * pictures(3)).to(torch.uint8)
    data = LabelledData(x, torch.arange(3), ("a", "b", "c"), rotations="classes")
    batch, y = Minibatches(data, 12)[0].query
    assert y.shape == (12, 12)
    assert (y.sum(0) == 1).all()
    for one, row in zip(batch, y, strict=True):
        label, turn = divmod(int(row.argmax()), 4)
        assert torch.allclose(one, x[label].rot90(turn, (-2, -1)).float() / 255)


def test_bad_minibatches_are_refused() -> None:
    data = LabelledData.from_arrays(pictures(3), [0, 1, 2])
    for size in (0, 4):
        with pytest.raises(ValueError, match=f"1 .. 3, the number of examples; found {size}"):
            Minibatches(data, size)


def test_queries_of_instances_are_changed_copies_of_the_support_example_of_their_class() -> None:
    x = pictures()
    task = Instances(x, 5, Crops(least=1.0, stretch=1.0), queries=3)[4]  # crops that change nothing
    classes = task.support.y.argmax(1)
    assert sorted(classes.tolist()) == list(range(5))
    assert len({tuple(one.flatten().tolist()) for one in task.support.x}) == 5
    for one, label in zip(task.query.x, task.query.y.argmax(1), strict=True):
        assert torch.allclose(one, task.support.x[classes == label][0], atol=1e-5)
    changed = Instances(x, 5, Distortions(), queries=3, augment_support=True)[4]
    assert torch.equal(changed.support.y, task.support.y)
    assert not torch.allclose(changed.support.x, task.support.x)


def test_an_instance_task_depends_on_seed_and_number_alone() -> None:
    source = Instances(pictures(), 5, Distortions(), seed=1)
    assert torch.equal(source.sample(np.array([2, 9])).query.x[1], source[9].query.x)
    assert "support and queries" not in source.stamp["tasks"]
    for arguments in ((21, 1), (0, 1), (5, 0)):
        with pytest.raises(ValueError, match=r"needs 21 classes|must be at least 1"):
            Instances(pictures(), arguments[0], Distortions(), arguments[1])


def test_clusters_of_separate_clouds_are_the_clouds() -> None:
    labels = torch.arange(60) % 4
    z = 20 * torch.eye(4)[labels] + torch.randn(60, 4)
    x = torch.arange(60.0)[:, None]
    data = clustered(x, z, 4, seed=1)
    ours = data.labels[:, None] == data.labels
    assert torch.equal(ours, labels[data.x.flatten().long()][:, None] == labels[data.x.flatten().long()])
    assert Episodes(data, ways=3, shots=5, queries=5)[0].query.x.shape == (15, 1)
    stretched = clustered(x, z, 4, seed=1, stretch=True)
    points = z.numpy() * np.random.default_rng(1).uniform(size=(1, 4)).astype(np.float32)
    expected = KMeans(4, n_init=1, random_state=1).fit_predict(points)
    assert (stretched.labels.numpy() == expected).all()


def test_small_clusters_are_left_out_with_their_examples() -> None:
    z = torch.tensor([[0.0], [0.1], [0.2], [9.0], [20.0], [20.1]])
    data = clustered(z, z, 3, least=2)
    assert data.sizes.sum() == 5
    assert 9.0 not in data.x.flatten().tolist()
    assert data.stamp["classes"] == "2 clusters of embeddings, seed 0"


def test_bad_clusters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(6, 2)
    with pytest.raises(ValueError, match="6 examples, 5 embeddings"):
        clustered(z, z[:5], 2)
    with pytest.raises(ValueError, match="7 clusters"):
        clustered(z, z, 7)
    with pytest.raises(ValueError, match="no cluster has 7 examples"):
        clustered(z, z, 2, least=7)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match=r"pip install 'kshot\[sklearn\]'"):
        clustered(z, z, 2)


def test_crops_are_windows_of_the_picture() -> None:
    # A picture whose two channels are its own coordinates tells where each pixel was read.
    line = (torch.arange(16.0) + 0.5) / 8 - 1
    picture = torch.stack([line.expand(16, 16), line[:, None].expand(16, 16)])
    u = torch.rand(1, 200, 5)
    x = Crops(least=0.25, stretch=2.0, mirror=True)(picture.expand(1, 200, 2, 16, 16), u)[0]
    across, down = x[:, 0, 8, :], x[:, 1, :, 8]
    width, height = (side[:, 8] - side[:, 7] for side in (across, down))  # in the middle, where no border is met
    assert ((width < 0) == (u[0, :, 4] < 0.5)).all()
    share = (width.abs() * height) * 8 * 8
    assert share.min() > 0.15  # a window as wide as the picture is cut, so that some have less than asked for
    assert share.max() <= 1.001
    assert ((share - (0.25 + 0.75 * u[0, :, 0])).abs() < 1e-3).float().mean() > 0.5


def test_bad_crops_are_refused() -> None:
    with pytest.raises(ValueError, match=r"least in 0\.\.1"):
        Crops(least=0.0)
    with pytest.raises(ValueError, match="stretch of at least 1"):
        Crops(stretch=0.5)


def test_a_chain_is_one_change_after_another() -> None:
    x, u = torch.rand(2, 3, 1, 8, 8), torch.rand(2, 3, 19)
    expected = Distortions()(Crops()(x, u[..., :5]), u[..., 5:])
    assert torch.equal(Chain((Crops(), Distortions()))(x, u), expected)


def test_numbered_tasks_are_the_first_of_the_source_in_their_order() -> None:
    source = Sinusoids(shots=3, queries=2)
    tasks = NumberedTasks(source, 4, length=10).sample(np.array([3, 6]))
    for at, number in enumerate((3, 2)):
        (x, task), y = tasks.support.x, tasks.support.y
        assert torch.equal(x[at], source[number].support.x)
        assert torch.equal(y[at], source[number].support.y)
        assert (task[at] == number).all()
        assert (tasks.query.x[1][at] == number).all()
    with pytest.raises(ValueError, match="one size"):
        NumberedTasks(VariableLists(), 2)


class VariableLists(Sinusoids):
    def sample(self, items: np.ndarray) -> list:  # type: ignore[override]
        return [super().sample(items[:1])]
