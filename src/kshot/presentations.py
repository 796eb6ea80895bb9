"""How a learner does the first time a class comes, the second time, and so on, as examples stream by."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kshot.batching import map_leaves, map_tasks, unstack
from kshot.core import Batch, Episode, Learner
from kshot.evaluation import Evaluation, stamp_of
from kshot.modes import in_eval_mode
from kshot.tasks.source import TaskSource, check_source

__all__ = ["evaluate_presentations"]


@torch.no_grad()
def evaluate_presentations(
    learner: Learner,
    tasks: TaskSource,
    presentations: Sequence[int] = (1, 2, 3, 5, 10),
    tasks_per_batch: int = 16,
    device: torch.device | str | None = None,
) -> dict[int, Evaluation]:
    """Stream each task's support set past a learner, one example at a time, and score what it says before each label.

    Each example is predicted from the state, and then joined to it by ``update``. Santoro et al. 2016, "Meta-learning with
    memory-augmented neural networks", table 1: five classes, ten times each.

    Args:
        learner: one with ``init`` and ``update``, left as it was found.
        tasks: fixed tasks, stacked, whose support sets are the streams; their queries are not asked.
        presentations: which times to score: 2 for the second time a class comes.
        tasks_per_batch: how many tasks are drawn and predicted at a time.
        device: where the learner is.

    Returns:
        For each time an evaluation, whose score of a task is the mean over its classes.

    Raises:
        TypeError: the learner cannot stream.
        ValueError: ``tasks`` is no TaskSource or has no classes, the learner's loss is none of labels, ``presentations`` are
            below 1, in some task no class comes that often, or tasks differ in size.

    >>> from kshot.learners.memory import Recurrent
    >>> from kshot.nets.cells import LSTM
    >>> from kshot.tasks.episodes import Episodes
    >>> from kshot.tasks.labelled import LabelledData
    >>> data = LabelledData.from_arrays(torch.randn(20, 3), torch.arange(20) % 4)
    >>> learner = Recurrent(LSTM(3 + 2, 8), torch.nn.Identity(), labels=2)
    >>> sorted(evaluate_presentations(learner, Episodes(data, ways=2, shots=3, queries=1, length=8), (1, 3)))
    [1, 3]
    """
    if missing := [name for name in ("init", "update") if not hasattr(learner, name)]:
        raise TypeError(
            f"a stream needs a learner with init and update; {type(learner).__name__} has no {' and no '.join(missing)}."
        )
    check_source(tasks, learner)
    if not learner.loss.labels:
        raise ValueError(
            f"presentations are counted of classes, and this {type(learner).__name__} is judged by "
            f"{learner.loss.metric_name}. Evaluate it by kshot.evaluate."
        )
    if min(presentations, default=1) < 1:
        raise ValueError(f"presentations are counted from 1; found {min(presentations)}.")
    scores: dict[int, list[Tensor]] = {n: [] for n in presentations}
    with in_eval_mode(learner):
        for batch in tasks.batches(tasks_per_batch, device):
            if not isinstance(batch, Episode):
                raise ValueError("streams of different lengths cannot be stacked; draw tasks of one size.")
            if not batch.support.y.shape[-1]:
                raise ValueError("presentations are counted of labels, and these support sets have none.")
            encoded = learner.encode_tasks(batch)
            right = map_tasks(lambda task: _scores(learner, task.support), encoded, None, type(learner).__name__)
            times, labelled = times_seen(batch.support.y), batch.support.y.sum(-1) > 0
            for n in presentations:
                now = ((times == n) & labelled).to(right.dtype)  # what has no label is of no class
                if not now.any(-1).all():
                    raise ValueError(f"in some task no class comes {n} times; draw tasks of at least {n} shots.")
                scores[n].append((right * now).sum(-1) / now.sum(-1))
    stamp = stamp_of(learner, tasks)
    loss = learner.loss
    return {
        n: Evaluation(
            loss.metric_name,
            loss.higher_is_better,
            torch.cat(each).double().cpu(),
            {**stamp, "presentation": str(n)},
            own=tuple(learner.settings),
        )
        for n, each in scores.items()
    }


def times_seen(y: Float[Tensor, "*t n labels"]) -> Int[Tensor, "*t n"]:
    """Return for each example how many times its label has come, itself included.

    >>> times_seen(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    tensor([1, 1, 2])
    """
    same = (y[..., :, None, :] == y[..., None, :, :]).all(-1)
    return same.tril().sum(-1)


def _scores(learner: Any, stream: Batch) -> Float[Tensor, " n"]:
    """Return the score of each example of an encoded stream, predicted before its label is shown."""
    state, scores = learner.init(), []
    for example in unstack(stream):
        one = map_leaves(lambda leaf: leaf[None], example)
        scores.append(learner.loss.metric(learner.predict(state, one.x), one.y))
        state = learner.update(state, one)
    return torch.stack(scores)
