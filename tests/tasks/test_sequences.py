import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from kshot.core import Episode
from kshot.tasks.associative_recall import AssociativeRecall
from kshot.tasks.copying import Copy, RepeatCopy
from kshot.tasks.n_grams import NGrams
from kshot.tasks.priority_sort import PrioritySort
from kshot.tasks.sequences import Sequences

Lists = list[list[float]]

SOURCES: dict[str, Callable[[], Sequences]] = {
    "copy": lambda: Copy(seed=3, length=200),
    "repeat copy": lambda: RepeatCopy(seed=3, length=200),
    "associative recall": lambda: AssociativeRecall(seed=3, length=200),
    "priority sort": lambda: PrioritySort(seed=3, length=200),
    "n-grams": lambda: NGrams(seed=3, length=200),
}


def shown_and_asked(task: Episode) -> tuple[Lists, Lists]:
    """Return what is shown and what is to be answered; nothing may be told while answering."""
    assert task.support.y.shape == (len(task.support.x), 0)
    assert task.query.x.shape == (len(task.query.y), task.support.x.shape[1])
    assert not task.query.x.any()
    return task.support.x.tolist(), task.query.y.tolist()


def test_copy_by_a_plain_loop() -> None:
    for task in Copy(seed=3, length=100):
        shown, asked = shown_and_asked(task)
        assert shown.pop() == [0.0] * 8 + [1.0]
        assert [[*vector, 0.0] for vector in asked] == shown
        assert 1 <= len(shown) <= 20


def test_repeat_copy_by_a_plain_loop() -> None:
    deviation = math.sqrt(sum((r - 5.5) ** 2 for r in range(1, 11)) / 10)
    repeats_seen = set()
    for task in RepeatCopy(seed=3, length=500):
        shown, asked = shown_and_asked(task)
        *vectors, end = shown
        assert end[:8] == [0.0] * 8
        repeats = round(end[8] * deviation + 5.5)
        assert end[8] == pytest.approx((repeats - 5.5) / deviation)
        expected = []
        for _ in range(repeats):
            for vector in vectors:
                assert vector[8] == 0.0
                expected.append([*vector[:8], 0.0])
        assert asked == [*expected, [0.0] * 8 + [1.0]]
        repeats_seen.add(repeats)
    assert repeats_seen == set(range(1, 11))


def test_more_repeats_than_in_training_are_normalised_as_in_training() -> None:
    more, trained = (RepeatCopy((2, 2), (r, r), seed=3)[0].support.x[2, 8].item() for r in (20, 10))
    assert more / trained == pytest.approx((20 - 5.5) / (10 - 5.5))


def test_the_stamp_says_over_what_repeats_are_normalised() -> None:
    one, other = (RepeatCopy((2, 2), (4, 4), normalised_over=(1, most)) for most in (10, 20))
    assert one.stamp != other.stamp


def test_associative_recall_by_a_plain_loop() -> None:
    places = set()
    for task in AssociativeRecall(seed=3, length=500):
        shown, asked = shown_and_asked(task)
        items, cue, ends = [], [], 0
        for vector in shown:
            if vector[6] == 1:
                items.append([])
            elif vector[7] == 1:
                ends += 1
            else:
                (cue if ends else items[-1]).append(vector[:6])
        assert ends == 2
        assert shown[-1][7] == 1
        assert 2 <= len(items) <= 6
        assert items.count(cue) == 1
        place = items.index(cue)
        assert asked == items[place + 1]
        places.add((len(items), place))
    assert places == {(n, place) for n in range(2, 7) for place in range(n - 1)}


def test_priority_sort_by_a_plain_loop() -> None:
    for task in PrioritySort(seed=3, length=50):
        shown, asked = shown_and_asked(task)
        assert shown.pop() == [0.0] * 9 + [1.0]
        assert len(shown) == 20
        assert all(-1 <= vector[8] <= 1 and vector[9] == 0 for vector in shown)
        expected = []
        while len(expected) < 16:
            highest = max(shown, key=lambda vector: vector[8])
            shown.remove(highest)
            expected.append(highest[:8])
        assert asked == expected


def test_priorities_are_uniform() -> None:
    priorities = PrioritySort(seed=3).sample(np.arange(500)).support.x[:, :20, 8].flatten()
    assert abs(priorities.mean()) < 5 / math.sqrt(3 * 10_000)
    assert abs(priorities.abs().mean() - 0.5) < 5 / math.sqrt(12 * 10_000)
    assert not torch.equal(priorities, PrioritySort(seed=4).sample(np.arange(500)).support.x[:, :20, 8].flatten())


def test_n_grams_are_asked_bit_by_bit_and_cost_what_a_plain_loop_counts() -> None:
    source = NGrams(seed=3, length=20)
    for task in source:
        bits = [*task.support.x[:, 0].tolist(), *task.query.x[:, 0].tolist(), task.query.y[-1, 0].item()]
        assert len(bits) == 200
        assert task.query.y[:, 0].tolist() == bits[5:]
        counts: dict[tuple[float, ...], list[float]] = {}
        cost = 0.0
        for t in range(5, 200):
            count = counts.setdefault(tuple(bits[t - 5 : t]), [0.0, 0.0])
            bit = int(bits[t])
            cost -= math.log2((count[bit] + 0.5) / (sum(count) + 1))
            count[bit] += 1
        assert source.optimal_bits(task).item() == pytest.approx(cost, abs=1e-9)


def test_the_optimum_of_n_grams_is_that_of_the_paper() -> None:
    source = NGrams(seed=3)
    tasks = source.sample(np.arange(1000))
    costs = source.optimal_bits(tasks) + 5  # the paper's bits include the first five, each of which costs one
    assert costs.shape == (1000,)
    assert abs(costs.mean() - 131.5) < 0.5 + 1.96 * costs.std() / math.sqrt(1000)
    one = source.optimal_bits(source[7])
    assert one == source.optimal_bits(tasks)[7]


def test_tables_of_n_grams_follow_the_beta_distribution() -> None:
    """How often the context 0 is followed by 1, in long sequences: the arcsine law."""
    tasks = NGrams(n=2, bits=2000, seed=3).sample(np.arange(400))
    after_zero = 1 - tasks.query.x[..., 0]
    rates = (after_zero * tasks.query.y[..., 0]).sum(1) / after_zero.sum(1)
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        share = (rates < math.sin(math.pi / 2 * quantile) ** 2).double().mean()
        assert abs(share - quantile) < 4 * math.sqrt(quantile * (1 - quantile) / 400)


def test_the_first_bits_of_n_grams_are_fair() -> None:
    tasks = NGrams(n=4, bits=10, seed=3).sample(np.arange(2000))
    first = torch.cat([tasks.support.x, tasks.query.x[:, :1]], 1)[..., 0]
    assert first.shape == (2000, 3)
    assert (first.mean(0) - 0.5).abs().max() < 4 * 0.5 / math.sqrt(2000)
    assert (first.T.corrcoef() - torch.eye(3)).abs().max() < 4 / math.sqrt(2000)


@pytest.mark.parametrize("name", SOURCES)
def test_a_task_depends_on_seed_and_number_alone(name: str) -> None:
    source = SOURCES[name]()
    items = [150, 3, 40, 3, 41]
    together = source.__getitems__(items)
    for item, task in zip(items, together, strict=True):
        for one, other in zip(task, source[item], strict=True):
            assert torch.equal(one.x, other.x)
            assert torch.equal(one.y, other.y)
    assert not torch.equal(source[40].query.y, source[41].query.y)


@pytest.mark.parametrize("name", SOURCES)
def test_another_seed_gives_other_tasks(name: str) -> None:
    source, other = SOURCES[name](), SOURCES[name]()
    other.seed = 4
    same = [
        one.query.y.shape == two.query.y.shape and torch.equal(one.query.y, two.query.y)
        for one, two in zip(source, other, strict=True)
    ]
    assert sum(same) < 20


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - {"n-grams"}))
def test_bits_are_fair_and_independent_of_each_other(name: str) -> None:
    bits = SOURCES[name]().bits
    first = torch.stack([task.support.x[int(name == "associative recall")][:bits] for task in SOURCES[name]()])
    assert (first.mean(0) - 0.5).abs().max() < 4.5 * 0.5 / math.sqrt(200)
    assert (first.T.corrcoef() - torch.eye(bits)).abs().max() < 4.5 / math.sqrt(200)


def test_lengths_stay_for_a_run_of_tasks_and_cover_their_range() -> None:
    source = Copy(same_length=8, seed=3)
    sizes = source.sizes(np.arange(8000))[:, 0].reshape(-1, 8)
    assert (sizes == sizes[:, :1]).all()
    assert set(sizes[:, 0].tolist()) == set(range(1, 21))
    assert abs(sizes[:, 0].mean() - 10.5) < 5 * math.sqrt(399 / 12 / 1000)


def test_tasks_of_one_length_stack_and_others_are_listed() -> None:
    source = Copy(same_length=8, seed=3)
    assert isinstance(source.sample(np.arange(8, 16)), Episode)
    assert isinstance(source.sample(np.arange(16)), list)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Copy(lengths=(0, 3)), "length must be"),
        (lambda: Copy(lengths=(4, 3)), "length must be"),
        (lambda: Copy(bits=0), "bits must be at least 1"),
        (lambda: RepeatCopy(normalised_over=(4, 3)), "normalised_over"),
        (lambda: RepeatCopy(normalised_over=(1, 3)), "none is shown as zero"),
        (lambda: AssociativeRecall(items=(1, 3)), "at least 2"),
        (lambda: PrioritySort(vectors=3, kept=4), "at most the 3 vectors"),
        (lambda: NGrams(n=1), "n must be"),
        (lambda: NGrams(n=6, bits=5), "n must be"),
    ],
)
def test_errors_say_what_is_wrong(make: Callable[[], Sequences], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
