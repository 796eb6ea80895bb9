"""The whole idea: a learner encodes examples, adapts to the support set of a task, and predicts its query set."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.batching import encode_together, map_leaves, map_tasks
from kshot.losses import Loss, cross_entropy
from kshot.validation import check_task

__all__ = ["Batch", "Episode", "Learner", "Tasks", "one_hot"]

Inputs: TypeAlias = Any  # a tensor (n, *features), or a pytree of tensors that share the first axis
State: TypeAlias = Any  # a pytree of tensors


class Batch(NamedTuple):
    """Examples ``x`` of ``(n, *features)`` with one row of ``y`` each.

    ``y`` is ``(n, ways)`` one-hot, where an all-zero row is an unlabelled example, or ``(n, d)`` regression targets.
    """

    x: Inputs
    y: Tensor


class Episode(NamedTuple):
    """One task: the support set that a learner adapts to, and the query set that it is judged on.

    With a leading task axis on every tensor it is a meta-batch of tasks.
    """

    support: Batch
    query: Batch


Tasks: TypeAlias = Episode | Sequence[Episode]  # stacked tasks, or a list where their sizes differ


def one_hot(labels: Any, ways: int) -> Float[Tensor, "*shape ways"]:
    """Turn integer labels of any shape into one-hot rows of ``ways`` floats.

    Raises:
        ValueError: labels are not integers, or lie outside 0 .. ways - 1.

    >>> one_hot([0, 2], ways=3)
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """
    labels = torch.as_tensor(labels)
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"one_hot expects integer labels; found dtype {labels.dtype}. Convert them with labels.long()."
        )
    if labels.numel() and not (labels.min() >= 0 and labels.max() < ways):
        found = f"{labels.min().item()} .. {labels.max().item()}"
        raise ValueError(
            f"one_hot expects labels in 0 .. {ways - 1} for ways={ways}; found {found}. Renumber them from 0."
        )
    return F.one_hot(labels.long(), ways).to(torch.get_default_dtype())


class Learner(nn.Module, ABC):
    """A learning algorithm whose parameters are what is meta-learned.

    A subclass writes ``adapt`` and ``predict`` for one task, with x already encoded; they change nothing on the
    learner. Everything that handles many tasks is derived here.

    Args:
        loss: what the query predictions are judged by; it brings its metric.

    Raises:
        TypeError: ``loss`` is no Loss.

    >>> class NearestMean(Learner):
    ...     def adapt(self, support):
    ...         return support.y.mT @ support.x / support.y.sum(0)[:, None]
    ...     def predict(self, state, x):
    ...         return -(x[:, None] - state).square().sum(-1)
    >>> support = Batch(torch.tensor([[0.0, 0.0], [4.0, 4.0]]), one_hot([0, 1], 2))
    >>> learner = NearestMean()
    >>> learner.predict(learner.adapt(support), torch.tensor([[3.0, 3.0]])).argmax().item()
    1
    """

    transductive: bool = False  # predictions for one query may depend on the other queries
    order_sensitive: bool = False  # the order of the support examples matters
    fixed_ways: bool = False  # the number of classes is built in
    uses_unlabelled: bool = False  # unlabelled support examples may change predictions
    exact_gradient: bool = True  # meta_loss(tasks).backward() gives the true gradient of meta_loss
    meta_trained: bool = True  # meta_loss reaches every parameter that requires a gradient
    one_cell: bool = False  # a task is a sequence that one recurrent cell reads, whose step is what is worth compiling
    settings: Mapping[str, str] = MappingProxyType({})  # what else a result must say of the learner

    def __init__(self, loss: Loss = cross_entropy) -> None:
        super().__init__()
        if not isinstance(loss, Loss):
            raise TypeError(
                f"loss must be a kshot.losses.Loss, which brings its metric; found a {type(loss).__name__}. Take "
                "one of kshot.losses, or make one: Loss(function, metric, name, higher_is_better)."
            )
        self.loss = loss

    def encode(self, x: Inputs) -> Inputs:
        """Map ``(m, *features)`` to ``(m, *z)``: what does not depend on the task. By default x itself."""
        return x

    @abstractmethod
    def adapt(self, support: Batch) -> State:
        """Return what is learned from the encoded support set of one task: a pytree of tensors, nothing else."""

    @abstractmethod
    def predict(self, state: State, x: Inputs) -> Tensor:
        """Return predictions for encoded queries: ``(q, ways)`` logits or ``(q, d)`` targets."""

    def task_loss(self, task: Episode) -> Tensor:
        """Return the loss of one encoded task, a scalar. The one default that an algorithm may replace."""
        return self.loss(self.predict(self.adapt(task.support), task.query.x), task.query.y)

    def at_progress(self, share: float) -> None:
        """Hear before every training step which share of the budget is used, 0 to 1, and tell the learners inside."""
        for part in self.modules():
            if part is not self and isinstance(part, Learner):
                part.at_progress(share)

    def default_optimizer(self) -> torch.optim.Optimizer:
        """Return the outer loop's optimizer where training is given none: Adam with 1e-3."""
        return torch.optim.Adam(self.parameters(), 1e-3)

    def task_losses(self, tasks: Tasks, chunk_size: int | None = None) -> Float[Tensor, " t"]:
        """Return the loss of each task.

        Args:
            tasks: an Episode whose tensors have a leading task axis, or a list of Episodes of any sizes.
            chunk_size: how many tasks vmap takes at a time; all by default. It changes memory and speed only.

        Raises:
            ValueError: there is no task, or something else than an Episode of Batches, labels are integers, shapes do not
                fit, support and query disagree on the ways, or the loss is for classes and the targets are none.
        """
        losses: Any = self._map(self.task_loss, tasks, chunk_size)
        return losses if isinstance(losses, Tensor) else torch.stack(losses)

    def meta_loss(self, tasks: Tasks, chunk_size: int | None = None) -> Float[Tensor, ""]:
        """Return the mean loss over tasks, ready for ``.backward()``; arguments as in ``task_losses``."""
        return self.task_losses(tasks, chunk_size).mean()

    def predictions(self, tasks: Tasks, chunk_size: int | None = None) -> Any:
        """Adapt to each task and predict its query set: ``(t, q, ...)``, or a list for a list of tasks."""
        return self._map(lambda task: self.predict(self.adapt(task.support), task.query.x), tasks, chunk_size)

    def encode_tasks(self, tasks: Episode) -> Episode:
        """Check stacked tasks and encode all their examples in one pass."""
        _check_kind(tasks)
        check_task(tasks, axes=("tasks", "n"))
        self._check_judged(tasks)
        # Flat, so that the encoder's convolutions never see a task axis.
        flat = [map_leaves(lambda leaf: leaf.flatten(0, 1), batch.x) for batch in tasks]
        encoded = encode_together(self.encode, flat)
        return Episode(*(Batch(_split_axis(z, y.shape[:2]), y) for z, (_, y) in zip(encoded, tasks, strict=True)))

    def map_encoded(
        self, function: Callable[[Episode], Tensor], tasks: Episode, chunk_size: int | None = None
    ) -> Tensor:
        """Apply a function of one encoded task to each of many, by vmap where it is possible, and stack the results."""
        return map_tasks(function, tasks, chunk_size, type(self).__name__)

    def _map(self, function: Callable[[Episode], Tensor], tasks: Tasks, chunk_size: int | None) -> Any:
        if isinstance(tasks, Episode):
            return self.map_encoded(function, self.encode_tasks(tasks), chunk_size)
        if not tasks:
            raise ValueError(
                "expected at least one task; found an empty list. Give a list of Episodes, or one of stacked tasks."
            )
        for task in tasks:
            _check_kind(task)
            check_task(task, axes=("n",))
            self._check_judged(task)
        return [function(task) for task in self._encode_listed(tasks)]

    def _check_judged(self, tasks: Episode) -> None:
        """Refuse regression by a loss of classes: of a single column the softmax is one, whatever is predicted."""
        y = tasks.query.y
        if self.loss.softmax and y.shape[-1] == 1 and not ((y == 0) | (y == 1)).all():
            raise ValueError(
                f"the loss of this {type(self).__name__} compares classes; found targets of one column, no labels. "
                "For regression pass loss=kshot.losses.mean_squared_error."
            )

    def _encode_listed(self, tasks: Sequence[Episode]) -> list[Episode]:
        batches = [batch for task in tasks for batch in task]
        encoded = encode_together(self.encode, [batch.x for batch in batches])
        whole = [Batch(z, batch.y) for z, batch in zip(encoded, batches, strict=True)]
        return [Episode(*pair) for pair in zip(whole[::2], whole[1::2], strict=True)]


def _check_kind(task: Any) -> None:
    if not (isinstance(task, Episode) and all(isinstance(batch, Batch) for batch in task)):
        raise ValueError(
            f"a task must be an Episode of two Batches; found {_kind(task)}. Write Episode(Batch(x, y), Batch(x, y)), the "
            "support set first: a DataLoader keeps both kinds."
        )


def _kind(task: Any) -> str:
    parts = f" of {', '.join(type(part).__name__ for part in task)}" if isinstance(task, tuple | list) else ""
    return f"{type(task).__name__}{parts}"


def _split_axis(x: Inputs, sizes: torch.Size) -> Inputs:
    return map_leaves(lambda leaf: leaf.reshape(*sizes, *leaf.shape[1:]), x)
