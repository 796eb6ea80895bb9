"""How good a learner is: its mean score over fixed tasks, with a 95 % interval and the protocol."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kshot.batching import map_tasks
from kshot.calibration import confidence_and_correctness, expected_calibration_error
from kshot.core import Episode, Learner, Tasks
from kshot.losses import SHARES, Loss
from kshot.modes import in_eval_mode
from kshot.tasks.source import TaskSource, check_source

__all__ = ["Comparison", "Evaluation", "compare", "evaluate", "stamp_of"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of a learner on fixed tasks.

    Args:
        metric: what was measured.
        higher_is_better: whether more of it is better.
        scores: ``(tasks,)`` one score a task, float64, on the CPU.
        stamp: the protocol under which it was measured.
        calibration_error: the expected calibration error of all query predictions, pooled; None where predictions are no
            logits.
        own: what the stamp says of the learner rather than of the tasks, beside what any learner's may say.

    >>> result = Evaluation("accuracy", True, torch.tensor([0.8, 1.0, 0.9, 0.9]))
    >>> print(result)
    accuracy 90.00 % ± 8.00 (95 % interval, 4 tasks)
    """

    metric: str
    higher_is_better: bool
    scores: Tensor
    stamp: Mapping[str, str] = field(default_factory=dict)
    calibration_error: float | None = None
    own: Sequence[str] = ()

    @property
    def mean(self) -> float:
        """The mean score over tasks."""
        return self.scores.mean().item()

    @property
    def ci95(self) -> float:
        """The half-width of the 95 % interval of the mean, 1.96 standard errors; infinite for a single task."""
        return _half_width(self.scores)

    def short(self) -> str:
        """Return mean and interval: percent for accuracies and error rates, the plain value for anything else."""
        if self.metric in SHARES:
            return f"{100 * self.mean:.2f} % ± {100 * self.ci95:.2f}"
        return f"{self.mean:.4g} ± {self.ci95:.2g}"

    def to_record(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {**vars(self), "stamp": dict(self.stamp), "scores": self.scores.tolist(), "own": list(self.own)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Evaluation":
        """Return the evaluation that ``to_record`` wrote down."""
        return cls(**{**record, "scores": torch.tensor(record["scores"], dtype=torch.float64)})

    def __str__(self) -> str:
        protocol = "".join(f"; {key}: {value}" for key, value in self.stamp.items())
        error = self.calibration_error
        calibration = "" if error is None else f"; expected calibration error: {100 * error:.1f} %"
        return f"{self.metric} {self.short()} (95 % interval, {len(self.scores):,} tasks{calibration}{protocol})"


@torch.no_grad()
def evaluate(
    learner: Learner,
    tasks: TaskSource,
    tasks_per_batch: int = 16,
    chunk_size: int | None = None,
    device: torch.device | str | None = None,
) -> Evaluation:
    """Adapt the learner to every task of a source, in eval mode, and score its predictions with the loss's metric.

    Where the softmax of predictions is meant as probabilities, their expected calibration error is measured too.

    Args:
        learner: left as it was found, its train or eval mode included.
        tasks: fixed tasks; the same source gives another learner the very same ones.
        tasks_per_batch: how many tasks are drawn and predicted at a time; it changes memory and speed only.
        chunk_size: how many of them vmap takes at a time.
        device: where the learner is.

    Raises:
        ValueError: ``tasks`` is no TaskSource, a task has no query, or its tasks are none that the learner can take or its
            loss can judge.

    >>> from kshot.learners.metric import Prototypical
    >>> from kshot.tasks.labelled import LabelledData
    >>> from kshot.tasks.episodes import Episodes
    >>> data = LabelledData.from_arrays(torch.arange(8.0)[:, None] // 2 * 9, [0, 0, 1, 1, 2, 2, 3, 3])
    >>> evaluate(Prototypical(torch.nn.Identity()), Episodes(data, ways=2, shots=1, queries=1, length=600)).short()
    '100.00 % ± 0.00'
    """
    check_source(tasks, learner)
    loss = learner.loss
    scores, answers = [], []
    with in_eval_mode(learner):
        for batch in tasks.batches(tasks_per_batch, device):
            _check_queries(batch)
            predictions = learner.predictions(batch, chunk_size)
            scores.append(_scores(loss, predictions, batch))
            answers += [_answers(predictions, batch)] if loss.softmax else []
    stamp = stamp_of(learner, tasks)
    calibration = expected_calibration_error(*torch.cat(answers, 1)) if answers else None
    own = tuple(learner.settings)
    return Evaluation(loss.metric_name, loss.higher_is_better, torch.cat(scores), stamp, calibration, own)


def stamp_of(learner: Learner, tasks: TaskSource) -> dict[str, str]:
    """Return the protocol of tasks, and what a result must say of the learner."""
    inference = "transductive" if learner.transductive else "inductive"
    return {**tasks.stamp, "learner": type(learner).__name__, "inference": inference, **learner.settings}


def _check_queries(tasks: Tasks) -> None:
    if any(task.query.y.shape[-2] == 0 for task in ([tasks] if isinstance(tasks, Episode) else tasks)):
        raise ValueError("a task without queries has nothing to be scored by; let its source give it some.")


def _scores(loss: Loss, predictions: Any, tasks: Tasks) -> Tensor:
    if isinstance(tasks, Episode):
        scores = map_tasks(lambda pair: loss.metric(*pair), (predictions, tasks.query.y), None, "metric")
    else:
        scores = torch.stack([loss.metric(one, task.query.y) for one, task in zip(predictions, tasks, strict=True)])
    return scores.double().cpu()


def _answers(predictions: Any, tasks: Tasks) -> Tensor:
    y = tasks.query.y if isinstance(tasks, Episode) else [task.query.y for task in tasks]
    return torch.cat([confidence_and_correctness(*pair) for pair in zip(predictions, y, strict=True)], 1).cpu()


@dataclass(frozen=True)
class Comparison:
    """The mean difference of two evaluations on the same tasks, first minus second, with its 95 % interval."""

    metric: str
    difference: float
    ci95: float
    tasks: int

    def __str__(self) -> str:
        scale, unit = (100, " points") if self.metric in SHARES else (1, "")
        verdict = "" if abs(self.difference) > self.ci95 else ", so no difference is shown"
        return (
            f"{self.metric} {scale * self.difference:+.4g}{unit} ± {scale * self.ci95:.2g} "
            f"(paired, 95 % interval, {self.tasks:,} tasks{verdict})"
        )


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two learners task by task, which is far sharper than comparing their two intervals.

    Raises:
        ValueError: they were not measured by the same metric on the same tasks.

    >>> one = Evaluation("accuracy", True, torch.tensor([0.8, 0.9, 0.7, 0.8]))
    >>> other = Evaluation("accuracy", True, torch.tensor([0.7, 0.8, 0.7, 0.7]))
    >>> print(compare(one, other))
    accuracy +7.5 points ± 4.9 (paired, 95 % interval, 4 tasks)
    """
    one, other = ({k: v for k, v in e.stamp.items() if k not in (*_OWN, *e.own)} for e in (first, second))
    if first.metric != second.metric or len(first.scores) != len(second.scores) or one != other:
        raise ValueError(
            "a paired comparison needs the same metric on the same tasks; found "
            f"{first.metric} on {len(first.scores)} tasks {one} and {second.metric} on {len(second.scores)} tasks {other}."
        )
    difference = first.scores - second.scores
    return Comparison(first.metric, difference.mean().item(), _half_width(difference), len(difference))


# What a stamp may say of any learner rather than of the tasks.
_OWN = ("learner", "inference", "inner steps", "adapts", "members")


def _half_width(scores: Tensor) -> float:
    return 1.96 * scores.std().item() / math.sqrt(len(scores)) if len(scores) > 1 else math.inf
