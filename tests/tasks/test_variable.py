from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from kshot.batching import leaves
from kshot.core import Episode
from kshot.evaluation import evaluate
from kshot.learners.metric.prototypical import Prototypical
from kshot.tasks.labelled import LabelledData
from kshot.tasks.variable import VariableEpisodes
from kshot.training import train

SIZES = (400, 90, 60, 40, 30, 25, 20, 12, 8)


def ladder(sizes: tuple[int, ...] = SIZES, **more: object) -> LabelledData:
    """Examples (class, number within the class), so that each tells where it comes from."""
    x = torch.tensor([(c, i) for c, size in enumerate(sizes) for i in range(size)], dtype=torch.float32)
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return LabelledData(x, labels, tuple(f"class{c}" for c in range(len(sizes))), **more)  # type: ignore[arg-type]


def marked(rotations: str) -> LabelledData:
    """Pictures with one mark, at the top in the middle."""
    x = torch.zeros(100, 1, 3, 3, dtype=torch.uint8)
    x[:, 0, 0, 1] = 255
    data = LabelledData(x, torch.arange(100) // 10, tuple("abcdefghij"))
    return data.with_rotations(rotations)  # type: ignore[arg-type]


def same(one: Episode, other: Episode) -> bool:
    return all(torch.equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


def classes_of(task: Episode) -> list[int]:
    """Return the class at each position of the labels, after checking that labels and examples agree."""
    x, y = torch.cat([task.support.x, task.query.x]), torch.cat([task.support.y, task.query.y])
    found = [x[y[:, way] == 1][:, 0].unique().tolist() for way in range(y.shape[1])]
    assert all(len(one) == 1 for one in found)
    return [int(one[0]) for one in found]


def test_labels_belong_to_their_examples_and_none_is_drawn_twice() -> None:
    for task in VariableEpisodes(ladder(), ways=(3, 9), length=40):
        x, y = torch.cat([task.support.x, task.query.x]), torch.cat([task.support.y, task.query.y])
        assert len(x.unique(dim=0)) == len(x)
        assert torch.equal(y.sum(1), torch.ones(len(y)))
        classes = classes_of(task)
        assert len(set(classes)) == len(classes) == y.shape[1]
        assert (x[:, 1] < torch.tensor(SIZES)[x[:, 0].long()]).all()


def test_sizes_follow_the_equations() -> None:
    for task in VariableEpisodes(ladder(), ways=(3, 9), max_support=150).sample(np.arange(200)):
        sizes = np.array(SIZES)[classes_of(task)]
        shots, queries = (batch.y.sum(0).numpy() for batch in task)
        q = min(10, sizes.min() // 2)
        assert (queries == q).all()
        assert (shots >= 1).all()
        assert (shots <= sizes - q).all()
        total = min(150, np.minimum(100, sizes - q).sum())
        assert shots.sum() <= total
        # With R_c at its largest, alpha is log 2 for this class and log 1/2 for every other.
        largest = 2 * sizes / (2 * sizes + 0.5 * (sizes.sum() - sizes))
        assert (shots <= np.floor(largest * (total - len(sizes))) + 1).all()


def test_ways_are_drawn_evenly_up_to_the_classes_there_are() -> None:
    tasks = VariableEpisodes(ladder((4,) * 9), ways=(5, 50)).sample(np.arange(1500))
    counts = np.bincount([task.support.y.shape[1] for task in tasks], minlength=10)
    assert counts[:5].sum() == 0
    # 1,500 draws of 5 .. 9: mean 300, standard deviation 15.5
    assert abs(counts[5:] - 300).max() < 5 * 15.5


def test_support_sizes_cover_their_range_evenly() -> None:
    # One class of 1,010: |S| = ceil(100 beta), and all of it goes to the class.
    tasks = VariableEpisodes(ladder((1010,)), ways=(1, 1)).sample(np.arange(2000))
    sizes = np.array([len(task.support.y) for task in tasks])
    assert sizes.min() >= 1
    assert sizes.max() <= 100
    # Uniform on 1 .. 100: mean 50.5, standard deviation 28.9
    assert abs(sizes.mean() - 50.5) < 5 * 28.9 / np.sqrt(2000)
    assert abs(np.mean(sizes <= 25) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_classes_are_imbalanced_by_size_and_by_chance() -> None:
    tasks = VariableEpisodes(ladder((1000, 1000, 250)), ways=(3, 3)).sample(np.arange(300))
    shots = np.array([task.support.y.sum(0).numpy()[np.argsort(classes_of(task))] for task in tasks])
    large = shots.sum(1) > 100
    first, second, small = shots[large].T
    ratio = np.log(first / second)
    # The difference of two uniform numbers on [log 1/2, log 2): within log 4, mean 0, standard deviation 0.566
    assert np.abs(ratio).max() < np.log(4) + 0.1
    assert abs(ratio.mean()) < 5 * 0.566 / np.sqrt(len(ratio))
    assert abs(ratio.std() - 0.566) < 0.1
    assert 3 < np.exp(np.log(first / small).mean()) < 5


def test_every_class_is_drawn_evenly() -> None:
    tasks = VariableEpisodes(ladder(), ways=(3, 3)).sample(np.arange(900))
    counts = np.bincount([c for task in tasks for c in classes_of(task)], minlength=9)
    # 900 draws of 3 out of 9: mean 300, standard deviation 14.1
    assert abs(counts - 300).max() < 5 * 14.1


@pytest.mark.parametrize("within_groups", [False, True])
def test_an_item_depends_on_seed_and_number_alone(within_groups: bool) -> None:
    data = ladder(groups=("a",) * 5 + ("b",) * 4)
    episodes = VariableEpisodes(data, (2, 5), seed=4, within_groups=within_groups)
    batch = episodes.sample(np.array([5, 9, 2]))
    assert isinstance(batch, list)
    assert all(same(one, episodes[i]) for one, i in zip(batch, (5, 9, 2), strict=True))
    other = VariableEpisodes(data, (2, 5), seed=5, within_groups=within_groups)
    assert not any(same(*pair) for pair in zip(batch, other.sample(np.array([5, 9, 2])), strict=True))


def test_examples_come_in_random_order() -> None:
    task = VariableEpisodes(ladder((300,) * 5), ways=(5, 5))[0]
    for batch in task:
        labels = batch.y.argmax(1)
        assert (labels.diff() < 0).sum() > 5


def test_classes_of_one_group_and_no_more_than_it_has() -> None:
    data = ladder(groups=("a",) * 5 + ("b",) * 3 + ("c",))
    tasks = VariableEpisodes(data, ways=(2, 50), within_groups=True).sample(np.arange(200))
    found = [("aaaaabbbc"[classes_of(task)[0]], len(classes_of(task))) for task in tasks]
    assert all(len({"aaaaabbbc"[c] for c in classes_of(task)}) == 1 for task in tasks)
    assert set(found) == {("a", 2), ("a", 3), ("a", 4), ("a", 5), ("b", 2), ("b", 3)}


def turns_of_classes(task: Episode) -> list[set[int]]:
    """Return where the mark of each class lies: top 1, left 3, right 5, bottom 7."""
    x, y = torch.cat([task.support.x, task.query.x]), torch.cat([task.support.y, task.query.y])
    assert x.max() == 1
    return [set(x[y[:, way] == 1].flatten(1).argmax(1).tolist()) for way in range(y.shape[1])]


def test_rotations() -> None:
    plain = [turns_of_classes(task) for task in VariableEpisodes(marked("none"), (2, 9)).sample(np.arange(9))]
    assert all(of_class == {1} for task in plain for of_class in task)
    per_class = [turns_of_classes(task) for task in VariableEpisodes(marked("per_class"), (2, 9)).sample(np.arange(40))]
    assert all(len(of_class) == 1 for task in per_class for of_class in task)
    assert any(len(set.union(*task)) > 1 for task in per_class)
    per_episode = [
        set.union(*turns_of_classes(t)) for t in VariableEpisodes(marked("per_episode")).sample(np.arange(40))
    ]
    assert all(len(task) == 1 for task in per_episode)
    assert len(set.union(*per_episode)) == 4
    all_classes = VariableEpisodes(marked("classes"), (40, 40))[0]
    assert sorted(next(iter(of_class)) for of_class in turns_of_classes(all_classes)) == sorted([1, 3, 5, 7] * 10)


def test_batches_and_loaders_give_the_same_lists() -> None:
    episodes = VariableEpisodes(ladder(), length=5)
    batches = list(episodes.batches(2, device="cpu"))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    flat = [task for batch in batches for task in batch]
    for workers in (0, 2):
        loaded = DataLoader(episodes, batch_size=5, num_workers=workers, collate_fn=list)
        assert all(same(a, b) for a, b in zip(next(iter(loaded)), flat, strict=True))


def test_batches_move_every_task_to_the_device() -> None:
    for batch in VariableEpisodes(ladder(), length=3).batches(2, device="meta"):
        assert isinstance(batch, list)
        assert all(isinstance(task, Episode) for task in batch)
        assert {leaf.device.type for leaf in leaves(batch)} == {"meta"}


def test_evaluation_gives_one_score_a_task_and_the_protocol() -> None:
    tasks = VariableEpisodes(ladder(), ways=(2, 6), max_support=99, length=20)
    only_class = torch.nn.Linear(2, 1, bias=False)
    only_class.weight.data = torch.tensor([[9.0, 0.0]])
    result = evaluate(Prototypical(only_class), tasks, tasks_per_batch=8)
    assert result.scores.shape == (20,)
    assert result.mean == 1
    assert result.stamp["tasks"] == (
        "2-6 ways, variable shots (Meta-Dataset), at most 99 support examples, at most 10 queries a class"
    )
    assert result.stamp["task seed"] == "0"
    again = evaluate(Prototypical(only_class), tasks, tasks_per_batch=3, device="cpu")
    torch.testing.assert_close(again.scores, result.scores)


def test_training_on_lists_of_tasks() -> None:
    x = torch.cat([torch.randn(360, 4) * 3, torch.arange(360.0)[:, None] // 30], 1)
    tasks = VariableEpisodes(LabelledData.from_arrays(x, np.arange(360) // 30), ways=(2, 5), length=30)
    learner = Prototypical(torch.nn.Linear(5, 5))
    before = evaluate(learner, tasks).mean
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    trained = train(learner, tasks, steps=100, tasks_per_step=4, optimizer=optimizer, validation=tasks, device="cpu")
    assert trained.steps == 100
    assert evaluate(learner, tasks).mean > before + 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VariableEpisodes(ladder((9, 9, 9))), "a task needs 5 classes; found 3. Lower ways"),
        (
            lambda: VariableEpisodes(ladder((9, 1, 9, 1)), (2, 4)),
            r"needs 2 examples .* 2 have fewer: class1 \(1\), class3 \(1\). Leave those classes out",
        ),
        (lambda: VariableEpisodes(ladder(), (0, 4)), r"1 <= fewest <= most; found \(0, 4\)"),
        (lambda: VariableEpisodes(ladder(), (4, 3)), r"1 <= fewest <= most; found \(4, 3\)"),
        (lambda: VariableEpisodes(ladder(), max_support=49), "max_support must be at least 50, .* found 49. Raise it"),
        (lambda: VariableEpisodes(ladder(), max_queries=0), "max_queries must be at least 1; found 0"),
        (lambda: VariableEpisodes(ladder(), length=0), "length must be at least 1"),
        (lambda: VariableEpisodes(ladder(), within_groups=True), "none. Pass groups="),
        (
            lambda: VariableEpisodes(ladder(groups=tuple("aaabbbccc")), within_groups=True),
            "needs 5 classes in one group",
        ),
    ],
)
def test_impossible_tasks_are_refused_at_construction(make: Callable[[], VariableEpisodes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
