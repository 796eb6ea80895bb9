from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from kshot.batching import leaves, stack, unstack
from kshot.core import Episode
from kshot.tasks.episodes import Episodes
from kshot.tasks.keys import choose, normal, random_keys, uniform
from kshot.tasks.labelled import LabelledData


def numbered(classes: int = 8, each: int = 6, **more: object) -> LabelledData:
    """Pictures whose every pixel is 10 * class + example, so that a picture tells where it comes from."""
    values = torch.arange(classes)[:, None] * 10 + torch.arange(each)
    x = values.flatten().to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4).contiguous()
    labels = torch.arange(classes).repeat_interleave(each)
    return LabelledData(x, labels, tuple(f"class{c}" for c in range(classes)), **more)  # type: ignore[arg-type]


def codes(x: torch.Tensor) -> torch.Tensor:
    return (x[..., 0, 0, 0] * 255).round().long()


def same(one: Episode, other: Episode) -> bool:
    return all(torch.equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


def test_shapes_and_scaling() -> None:
    tasks = Episodes(numbered(), ways=5, shots=2, queries=3).sample(np.arange(7))
    assert tasks.support.x.shape == (7, 10, 1, 4, 4)
    assert tasks.query.y.shape == (7, 15, 5)
    assert tasks.support.x.dtype == torch.float32
    assert tasks.support.x.max() <= 1


def test_an_item_depends_on_seed_and_number_alone() -> None:
    episodes = Episodes(numbered(), 3, 1, 2, seed=4)
    batch = unstack(episodes.sample(np.array([5, 9, 2])))
    assert same(batch[1], episodes[9])
    assert same(stack(batch), stack([episodes[i] for i in (5, 9, 2)]))
    assert not same(Episodes(numbered(), 3, 1, 2, seed=5)[9], episodes[9])


def test_an_item_does_not_depend_on_the_sizes_of_classes_drawn_beside_it() -> None:
    x = torch.arange(60.0)[:, None]
    data = LabelledData.from_arrays(x, [0] * 5 + [1] * 5 + [2] * 20 + [3] * 30)
    episodes = Episodes(data, 2, 1, 2)
    together = unstack(episodes.sample(np.arange(30)))
    assert all(same(one, episodes[i]) for i, one in enumerate(together))


def test_labels_belong_to_their_pictures_and_no_example_is_drawn_twice() -> None:
    for task in Episodes(numbered(), 4, 2, 4, length=50):
        seen = torch.cat([codes(task.support.x), codes(task.query.x)])
        assert len(seen.unique()) == 4 * 6
        labels = torch.cat([task.support.y.argmax(1), task.query.y.argmax(1)])
        pairs = {(int(s) // 10, int(label)) for s, label in zip(seen, labels, strict=True)}
        assert len(pairs) == 4
        assert torch.equal(task.support.y.sum(0), torch.full((4,), 2.0))


def test_every_class_and_position_is_drawn_evenly() -> None:
    tasks = Episodes(numbered(), 4, 1, 1, length=4000).sample(np.arange(4000))
    counts = torch.bincount(codes(tasks.support.x).flatten() // 10, minlength=8)
    # 4,000 draws of 4 out of 8: mean 2,000, standard deviation 31.6
    assert (counts - 2000).abs().max() < 5 * 31.6
    first = torch.bincount(tasks.query.y[:, 0].argmax(1), minlength=4)
    assert (first - 1000).abs().max() < 5 * 27.4


def test_a_data_loader_stacks_them_with_workers_too() -> None:
    episodes = Episodes(numbered(), 3, 1, 2, length=6)
    expected = list(episodes.batches(3))
    for workers in (0, 2):
        loaded = list(DataLoader(episodes, batch_size=3, num_workers=workers))
        assert len(loaded) == 2
        assert all(same(a, b) for a, b in zip(loaded, expected, strict=True))


def test_length_bounds_iteration() -> None:
    episodes = Episodes(numbered(), 3, 1, 2, length=5)
    assert len(list(episodes)) == 5
    assert [len(b.support.y) for b in episodes.batches(2)] == [2, 2, 1]
    with pytest.raises(IndexError, match=r"0 \.\. 4"):
        episodes[5]


def oriented() -> LabelledData:
    x = torch.zeros(40, 1, 3, 3, dtype=torch.uint8)
    x[:, 0, 0, 1] = 255  # a mark at the top, in the middle
    return LabelledData(x, torch.arange(40) // 10, ("a", "b", "c", "d"))


def turns(x: torch.Tensor) -> torch.Tensor:
    """Read the quarter turns off the mark: top, left, bottom, right."""
    marks = torch.stack([x[..., 0, 0, 1], x[..., 0, 1, 0], x[..., 0, 2, 1], x[..., 0, 1, 2]], -1)
    return marks.argmax(-1)


def turns_of_classes(task: Episode) -> list[set[int]]:
    x, y = torch.cat([task.support.x, task.query.x]), torch.cat([task.support.y, task.query.y])
    return [set(turns(x[y[:, way] == 1]).tolist()) for way in range(y.shape[1])]


def test_rotations_per_class_and_per_episode() -> None:
    per_class = [turns_of_classes(t) for t in Episodes(oriented().with_rotations("per_class"), 4, 1, 2, length=40)]
    assert all(len(of_class) == 1 for task in per_class for of_class in task)
    assert any(len(set.union(*task)) > 1 for task in per_class)
    per_episode = [turns_of_classes(t) for t in Episodes(oriented().with_rotations("per_episode"), 4, 1, 2, length=40)]
    assert all(len(set.union(*task)) == 1 for task in per_episode)
    assert len(set.union(*(set.union(*task) for task in per_episode))) == 4


def test_rotations_as_classes_make_four_of_each() -> None:
    episodes = Episodes(oriented().with_rotations("classes"), 16, 1, 2, length=3)
    for task in episodes:
        found = turns_of_classes(task)
        assert sorted(next(iter(of_class)) for of_class in found) == sorted([0, 1, 2, 3] * 4)
    assert episodes.stamp["rotations"] == "classes"


def test_classes_of_one_group() -> None:
    data = numbered(groups=("a",) * 5 + ("b",) * 2 + ("c",) * 1)
    for task in Episodes(data, 2, 1, 1, length=60, within_groups=True):
        groups = {"aaaaabbc"[code // 10] for code in codes(task.support.x).tolist()}
        assert len(groups) == 1
        assert groups != {"c"}


def test_unlabelled_examples_and_distractors() -> None:
    task = Episodes(numbered(), 3, 1, 2, unlabelled=2, distractors=2)[0]
    labelled = task.support.y.sum(1) > 0
    assert labelled.sum() == 3
    assert (~labelled).sum() == (3 + 2) * 2
    known = set((codes(task.support.x[labelled]) // 10).tolist())
    others = set((codes(task.support.x[~labelled]) // 10).tolist())
    assert known < others
    assert len(others) == 5
    assert set((codes(task.query.x) // 10).tolist()) == known


class Brighter:
    numbers = 1

    def __call__(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return x + u[..., None, None].to(x.dtype)


def test_augmentation_has_numbers_of_its_own_for_each_example() -> None:
    episodes, plain = Episodes(numbered(), 3, 1, 2, augment=Brighter()), Episodes(numbered(), 3, 1, 2)
    tasks, before = episodes.sample(np.arange(4)), plain.sample(np.arange(4))
    added = torch.cat([(one.x - other.x)[..., 0, 0, 0] for one, other in zip(tasks, before, strict=True)], 1)
    assert len(added.flatten().unique()) == 4 * 9
    assert same(episodes[2], unstack(tasks)[2])
    assert "Brighter" in episodes.stamp["augment"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Episodes(numbered(each=3), 5, 1, 5), r"each class needs 6 examples .* class0 \(3\)"),
        (lambda: Episodes(numbered(), 9, 1, 1), "needs 9 classes; found 8"),
        (lambda: Episodes(numbered(), 3, 1, 1, within_groups=True), "none. Pass groups="),
        (
            lambda: Episodes(numbered(groups=("a", "b") * 4), 5, 1, 1, within_groups=True),
            "needs 5 classes in one group",
        ),
        (lambda: Episodes(numbered(), 0, 1, 1), "ways must be at least 1"),
        (lambda: Episodes(numbered(), 3, -1, 1), "shots must be at least 0"),
        (lambda: Episodes(numbered(), 3, 1, 1, unlabelled=-1), "unlabelled must be at least 0"),
        (lambda: Episodes(numbered(), 3, 1, 1, distractors=-1), "distractors must be at least 0"),
        (lambda: Episodes(numbered(), 3, 1, 1, length=0), "length must be at least 1"),
    ],
)
def test_impossible_tasks_are_refused_at_construction(make: Callable[[], Episodes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_normal_numbers_are_normal_and_a_longer_row_begins_as_a_shorter_one() -> None:
    drawn = normal(3, 1, np.arange(20_000), 5)
    assert abs(np.corrcoef(drawn, rowvar=False) - np.eye(5)).max() < 0.04
    assert abs(drawn.mean()) < 0.02
    for power, moment in ((2, 1), (3, 0), (4, 3)):
        assert abs((drawn**power).mean() - moment) < 0.1
    assert (normal(3, 1, np.array([7]), 2)[0] == drawn[7, :2]).all()


def test_keys_are_uniform_and_independent_of_each_other() -> None:
    u = uniform(0, 0, np.arange(2000), 50)
    assert abs(u.mean() - 0.5) < 5 * 0.2887 / np.sqrt(u.size)
    assert abs(np.corrcoef(u[:, 0], u[:, 1])[0, 1]) < 5 / np.sqrt(2000)
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 5 / np.sqrt(2000)
    streams = [uniform(seed, stream, np.arange(2000), 1)[:, 0] for seed, stream in ((0, 0), (0, 1), (1, 0))]
    assert np.abs(np.corrcoef(streams) - np.eye(3)).max() < 5 / np.sqrt(2000)


def test_choose_draws_without_replacement() -> None:
    chosen = choose(random_keys(0, 0, np.arange(500), 9), 4)
    assert all(len(set(row)) == 4 for row in chosen.tolist())
    assert choose(random_keys(0, 0, np.arange(5), 4), 4).shape == (5, 4)


def test_uneven_tasks_have_as_many_examples_of_a_class_on_average() -> None:
    episodes = Episodes(numbered(each=9), 3, 4, 2, uneven=True)
    tasks = episodes.sample(np.arange(500))
    counts = tasks.support.y.sum(1)
    assert (counts.sum(1) == 12).all()
    assert counts.max() == 7  # that are no queries
    assert counts.min() <= 1
    assert counts.mean(0).sub(4).abs().max() < 0.2
    assert (tasks.query.y.sum(1) == 2).all()
    assert all(len(codes(torch.cat([task.support.x, task.query.x])).unique()) == 18 for task in unstack(tasks))
    assert same(episodes[9], unstack(tasks)[9])
    assert episodes.stamp["tasks"] == "3-way 4-shot on average, 2 queries a class"


def test_uneven_tasks_draw_from_twice_as_many_where_there_are() -> None:
    counts = Episodes(numbered(each=9), 3, 2, 2, uneven=True).sample(np.arange(500)).support.y.sum(1)
    assert counts.max() == 4


def test_uneven_tasks_without_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="found unlabelled=1"):
        Episodes(numbered(), 3, 1, 1, unlabelled=1, uneven=True)
