import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kshot.core import Batch, Episode, Learner, Tasks
from kshot.evaluation import Evaluation, compare, evaluate
from kshot.learners.gradient import MAML
from kshot.learners.metric import Prototypical
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import LabelledData
from kshot.tasks.source import TaskSource


def blobs(distance: float) -> LabelledData:
    """Gaussian classes at the corners of a simplex, unit variance in every direction."""
    generator = torch.Generator().manual_seed(0)
    corners = distance / math.sqrt(2) * torch.eye(40)
    x = corners[:, None] + torch.randn(40, 200, 40, generator=generator)
    return LabelledData(x.flatten(0, 1), torch.arange(40).repeat_interleave(200), tuple(map(str, range(40))))


def tasks(length: int = 400, seed: int = 0) -> Episodes:
    return Episodes(blobs(2.0), 2, 100, 50, seed=seed, length=length)


def test_accuracy_matches_the_bayes_accuracy_of_gaussian_classes() -> None:
    """With 100 shots a prototype is nearly the true mean, and two classes d apart are told apart with Phi(d / 2)."""
    result = evaluate(Prototypical(nn.Identity()), tasks())
    bayes = 0.5 * (1 + math.erf(1.0 / math.sqrt(2)))
    assert 0 < bayes - result.mean < 0.05  # the means are estimated: a little lower, never higher
    assert result.ci95 < 0.005


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    learner = Prototypical(nn.Identity())
    scores = evaluate(learner, Episodes(blobs(2.0), 2, 1, 5, length=6000)).scores
    centre = scores.mean()
    parts = [Evaluation("accuracy", True, part) for part in scores.split(60)]
    covered = sum(abs(part.mean - centre) <= part.ci95 for part in parts)
    assert 88 <= covered <= 100  # of 100, expected 95


def test_batches_change_nothing_and_the_learner_is_left_as_it_was() -> None:
    learner = Prototypical(nn.Sequential(nn.Linear(40, 8), nn.BatchNorm1d(8)))
    source = Episodes(blobs(2.0), 3, 1, 5, length=50)
    learner.encoder[0].eval()  # frozen by hand
    first = evaluate(learner, source, tasks_per_batch=7)
    assert learner.training
    assert not learner.encoder[0].training
    second = evaluate(learner.eval(), source, tasks_per_batch=50, chunk_size=3)
    assert not learner.training
    torch.testing.assert_close(first.scores, second.scores)


def test_the_stamp_says_how_it_was_measured() -> None:
    result = evaluate(
        MAML(nn.Sequential(nn.Linear(40, 2), nn.BatchNorm1d(2, track_running_stats=False)), 0.1), tasks(2)
    )
    assert result.stamp["inference"] == "transductive"
    assert result.stamp["learner"] == "MAML"
    assert result.stamp["inner steps"] == "1"
    assert "2-way 100-shot, 50 queries" in str(result)
    again = Evaluation.from_record(result.to_record())
    assert str(again) == str(result)


class Shifted(Learner):
    """Prototypes with noise of a fixed size: a worse learner on the same tasks."""

    def adapt(self, support: Batch) -> Tensor:
        return support.y.mT @ support.x / support.y.sum(0)[:, None]

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return -(x[:, None] - 0.8 * state[:, [1, *range(1, 40)]]).square().sum(-1)


def test_a_paired_comparison_is_sharper_than_two_intervals() -> None:
    source = Episodes(blobs(2.0), 2, 5, 5, length=600)
    better, worse = evaluate(Prototypical(nn.Identity()), source), evaluate(Shifted(), source)
    comparison = compare(better, worse)
    assert comparison.difference == pytest.approx(better.mean - worse.mean)
    assert comparison.ci95 < math.hypot(better.ci95, worse.ci95)
    assert "no difference is shown" in str(compare(better, better))


def test_learners_of_settings_of_their_own_are_compared() -> None:
    sharp, source = Shifted(), tasks(5)
    sharp.settings = {"temperature": "0.5"}
    plain, result = evaluate(Prototypical(nn.Identity()), source), evaluate(sharp, source)
    again = Evaluation.from_record(result.to_record())
    for one in (result, again):
        assert compare(one, plain).difference == pytest.approx(result.mean - plain.mean)


def test_comparisons_of_different_tasks_are_refused() -> None:
    learner = Prototypical(nn.Identity())
    with pytest.raises(ValueError, match="same metric on the same tasks"):
        compare(evaluate(learner, tasks(5)), evaluate(learner, tasks(5, seed=1)))


class Unasked(TaskSource):
    """Tasks without queries."""

    stamp: Mapping[str, str] = MappingProxyType({})

    def sample(self, items: NDArray[np.int64]) -> Tasks:
        support = Batch(torch.randn(len(items), 2, 3), torch.eye(2).expand(len(items), 2, 2))
        return Episode(support, Batch(*(part[:, :0] for part in support)))


def test_tasks_without_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="without queries"):
        evaluate(Prototypical(nn.Identity()), Unasked(0, 3))


def test_one_task_has_no_interval() -> None:
    assert evaluate(Prototypical(nn.Identity()), tasks(1)).ci95 == math.inf


def test_shares_are_shown_in_percent_and_other_metrics_as_they_are() -> None:
    scores = torch.tensor([0.25, 0.75])
    assert Evaluation("bit error", False, scores).short() == "50.00 % ± 49.00"
    assert Evaluation("bits per sequence", False, scores).short() == "0.5 ± 0.49"
    assert "points" in str(
        compare(Evaluation("bit error", False, scores), Evaluation("bit error", False, 0.5 * scores))
    )
