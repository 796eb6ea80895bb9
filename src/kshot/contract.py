"""What every learner promises, as checks that anyone may run on a learner of their own."""

import copy
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from kshot.batching import leaves, map_leaves, unstack
from kshot.core import Batch, Episode, Learner
from kshot.finite_differences import finite_difference_error, least_norm
from kshot.validation import check_task

__all__ = ["CHECKS", "Case", "ContractError", "check_learner", "make_case"]

Direction: TypeAlias = Callable[[Learner, Episode], dict[str, Tensor]]

_CLOSE = 1e-8  # relative, in float64: far above rounding, far below any real difference
_FINITE_DIFFERENCE = 1e-5  # relative; central differences themselves are good to about 1e-8


class ContractError(AssertionError):
    """A learner breaks a promise; the message says which one, and how to mend or declare it."""


@dataclass(frozen=True)
class Case:
    """What a check is given: a learner in float64, stacked tasks, and the direction that an inexact method states."""

    learner: Learner
    tasks: Episode
    direction: Direction | None = None


def check_learner(learner: Learner, episodes: Any, direction: Direction | None = None) -> None:
    """Check every promise of a learner, in float64 and on a copy; return if it keeps them all.

    The heart is the meta-gradient: ``meta_loss(tasks).backward()`` must agree with finite differences, and tasks in a
    batch with tasks one at a time.

    Args:
        learner: any learner of yours.
        episodes: a stacked Episode of two or more tasks, or a source of tasks, of which three are drawn.
        direction: where ``exact_gradient`` is False, the update direction that the method states instead: maps the
            learner and stacked tasks to a tensor for each parameter name.

    Raises:
        ContractError: the first promise that is broken, with what was expected and found.
        ValueError: the tasks are fewer than two, not stacked, or of several sizes.

    >>> from kshot.learners.metric import Prototypical
    >>> from kshot.tasks.episodes import Episodes
    >>> from kshot.tasks.labelled import LabelledData
    >>> rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    >>> data = LabelledData.from_arrays(rows, torch.arange(40) % 4)
    >>> check_learner(Prototypical(torch.nn.Linear(3, 2)), Episodes(data, ways=3, shots=2, queries=2))
    """
    case = make_case(learner, episodes, direction)
    for check in CHECKS:
        check(case)


def make_case(learner: Learner, episodes: Any, direction: Direction | None = None) -> Case:
    """Copy a learner to float64, away from special points such as zero biases, and draw its tasks."""
    if not isinstance(episodes, Episode) and not hasattr(episodes, "sample"):
        raise ValueError(
            "check_learner takes a source of tasks, or an Episode of two or more stacked tasks; found a "
            f"{type(episodes).__name__}. Stack a list of Episodes of one size by kshot.batching.stack."
        )
    tasks = episodes if isinstance(episodes, Episode) else episodes.sample(np.arange(3))
    if not isinstance(tasks, Episode):
        raise ValueError(
            "check_learner stacks three tasks; found tasks of several sizes. Give them the same ways and shots."
        )
    check_task(tasks, axes=("tasks", "n"))
    if len(tasks.query.y) < 2:
        raise ValueError("check_learner compares tasks, and needs two or more stacked ones; found 1. Draw more.")
    twin = copy.deepcopy(learner).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise.to(parameter.device), alpha=0.02)
    return Case(twin, map_leaves(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, tasks), direction)


def check_state_is_tensors(case: Case) -> None:
    """``adapt`` returns a pytree of tensors, nothing else."""
    state = case.learner.adapt(_first(case).support)
    strange = [type(leaf).__name__ for leaf in leaves(state) if not isinstance(leaf, Tensor)]
    _require(not strange, f"adapt must return a pytree of tensors; found {strange}. Keep tensors only in the state.")


def check_adapt_and_predict_are_pure(case: Case) -> None:
    """The same inputs give the same outputs, and neither the learner nor the inputs change."""
    before = copy.deepcopy((case.learner.state_dict(), case.tasks))
    first, second = _predictions(case), _predictions(case)
    _require(bool(first.isfinite().all()), "predictions must be finite; found some that are not. Divide by no zero.")
    _equal(first, second, "the same tasks must give the same predictions in eval mode. Draw nothing at random there.")
    names = case.learner.state_dict()
    changed = [name for name in names if not torch.equal(names[name], before[0][name])]
    _require(not changed, f"adapt and predict must leave state_dict untouched; {changed} changed. Return it as state.")
    same = all(torch.equal(one, other) for one, other in zip(leaves(case.tasks), leaves(before[1]), strict=True))
    _require(same, "adapt and predict must not write into their inputs. Use out-of-place operations.")


def check_state_is_all_that_is_remembered(case: Case) -> None:
    """A state predicts the same after the learner has adapted to another task."""
    task, other = case.learner._encode_listed(unstack(case.tasks)[:2])
    state = case.learner.adapt(task.support)
    expected = case.learner.predict(state, task.query.x)
    case.learner.adapt(other.support)
    after = case.learner.predict(state, task.query.x)
    _equal(
        after, expected, "adapting to another task must not change what a state predicts. Keep nothing on the learner."
    )


def check_state_survives_saving(case: Case) -> None:
    """A state written as safetensors and read again predicts the same."""
    task = _first(case)
    tensors, spec = tree_flatten(case.learner.adapt(task.support))
    saved = safetensors.torch.save({str(i): t.detach().contiguous().clone() for i, t in enumerate(tensors)})
    loaded = safetensors.torch.load(saved)
    again = case.learner.predict(tree_unflatten([loaded[str(i)] for i in range(len(tensors))], spec), task.query.x)
    _equal(
        case.learner.predict(case.learner.adapt(task.support), task.query.x),
        again,
        "a saved state must predict the same.",
    )


def check_update(case: Case) -> None:
    """``update``, where there is one, joins examples and classes, to ``init`` too, as adapting to all at once would."""
    update: Any = getattr(case.learner, "update", None)
    if update is None:
        return
    task = _first(case)
    if (init := getattr(case.learner, "init", None)) is not None:
        _equal(
            case.learner.predict(update(init(), task.support), task.query.x),
            _one(case, task),
            "updating what init returns with the support set must predict as adapting to it does.",
        )
    n, ways = task.support.y.shape
    cases = [("half of the examples", torch.arange(n) < n // 2, ways)]
    if _is_classification(case.tasks) and not (case.learner.fixed_ways or case.learner.order_sensitive):
        cases.append(("all classes but the last", task.support.y.argmax(1) < ways - 1, ways - 1))
    for what, known, columns in cases:
        state = update(case.learner.adapt(_rows(task.support, known, columns)), _rows(task.support, ~known, ways))
        _equal(
            case.learner.predict(state, task.query.x),
            _one(case, task),
            f"adapting to {what} and updating with the rest must predict as adapting to all at once does.",
        )


def check_batch_equals_loop(case: Case) -> None:
    """Tasks in a batch, in chunks of any size, and one at a time give the same losses and predictions."""
    listed = torch.stack(list(case.learner.predictions(unstack(case.tasks))))
    losses = case.learner.task_losses(unstack(case.tasks))
    for chunk_size in (None, 1, 2):
        what = f"with chunk_size={chunk_size} must be those of the loop over tasks. Mix nothing across tasks."
        _equal(case.learner.predictions(case.tasks, chunk_size), listed, f"predictions {what}")
        _equal(case.learner.task_losses(case.tasks, chunk_size), losses, f"losses {what}")


def check_encode_is_rowwise(case: Case) -> None:
    """In eval mode row i of ``encode(x)`` depends on x[i] alone."""
    x = map_leaves(lambda leaf: leaf[0], case.tasks.query.x)
    whole = leaves(case.learner.encode(x))
    first = leaves(case.learner.encode(map_leaves(lambda leaf: leaf[:1], x)))
    for one, other in zip(whole, first, strict=True):
        _equal(one[:1], other, "encode must treat each example alone in eval mode. Move what mixes examples to adapt.")


def check_gradient_reaches_every_parameter(case: Case) -> None:
    """Every parameter of a meta-trained learner that requires a gradient gets a finite one."""
    if not case.learner.meta_trained:
        return
    gradients = _gradients(case, case.tasks)
    for name in (name for name, parameter in case.learner.named_parameters() if parameter.requires_grad):
        found = name in gradients
        _require(found, f"{name} gets no gradient. Use it, set requires_grad=False, or declare meta_trained=False.")
        _require(bool(gradients[name].isfinite().all()), f"the gradient of {name} is not finite.")


def check_meta_gradient(case: Case) -> None:
    """``meta_loss(tasks).backward()`` is the true gradient, or the direction that the method states."""
    if not case.learner.meta_trained:
        return
    found = _gradients(case, case.tasks)
    looped = _gradients(case, unstack(case.tasks))
    least = least_norm(found)
    for name, gradient in found.items():
        _equal(gradient, looped[name], f"the batched gradient of {name} must be that of the loop over tasks.", least)
    parameters = dict(case.learner.named_parameters())
    enough = 0.1 * _FINITE_DIFFERENCE
    # One direction that is off shows that a gradient is inexact; for one that should be exact, the worst is named.
    until = math.inf if case.learner.exact_gradient else _FINITE_DIFFERENCE
    error, worst = finite_difference_error(lambda: _meta_loss(case, case.tasks), parameters, found, enough, until)
    if case.learner.exact_gradient:
        _require(
            error < _FINITE_DIFFERENCE,
            f"the gradient of {worst} is off by {error:.1e} from finite differences. Look for detached tensors and fused "
            "normalisation layers; or declare exact_gradient=False and pass direction=.",
        )
        return
    _require(
        error > _FINITE_DIFFERENCE, "exact_gradient=False is declared, but the gradient is exact. Declare it True."
    )
    _require(case.direction is not None, "exact_gradient=False needs direction=: what the method takes for a gradient.")
    assert case.direction is not None
    stated = case.direction(case.learner, case.tasks)
    for name, gradient in found.items():
        _equal(gradient, stated[name], f"the gradient of {name} must be the direction that the method states.", least)


def check_unlabelled_examples(case: Case) -> None:
    """An unlabelled support example changes nothing, unless ``uses_unlabelled`` is declared."""
    if not _is_classification(case.tasks):
        return
    task = _first(case)
    extra = map_leaves(lambda leaf: torch.cat([leaf, _another(leaf)]), task.support.x)
    support = Batch(extra, torch.cat([task.support.y, torch.zeros_like(task.support.y[:1])]))
    _declared(
        "uses_unlabelled",
        case,
        _one(case, task),
        _one(case, Episode(support, task.query)),
        "a support example with an all-zero row was added (divide by the labelled examples only)",
    )


def check_transductive(case: Case) -> None:
    """A query's prediction depends on other queries only where ``transductive`` is declared."""
    task = _first(case)
    state = case.learner.adapt(task.support)
    half = len(task.query.y) // 2  # not one by one: stock batch normalisation refuses a batch of one
    parts = [map_leaves(lambda leaf: leaf[:half], task.query.x), map_leaves(lambda leaf: leaf[half:], task.query.x)]
    apart = torch.cat([case.learner.predict(state, x) for x in parts])
    _declared("transductive", case, _one(case, task), apart, "the queries were predicted in two halves")


def check_order_sensitive(case: Case) -> None:
    """The order of the support examples matters only where ``order_sensitive`` is declared."""
    task = _first(case)
    flipped = Batch(map_leaves(lambda leaf: leaf.flip(0), task.support.x), task.support.y.flip(0))
    _declared(
        "order_sensitive",
        case,
        _one(case, task),
        _one(case, Episode(flipped, task.query)),
        "the support set was reversed",
    )


def check_fixed_ways(case: Case) -> None:
    """Without ``fixed_ways`` a learner takes tasks with another number of classes."""
    if not _is_classification(case.tasks):
        return
    fewer = Episode(*(Batch(batch.x, batch.y[..., 1:]) for batch in _first(case)))
    ways = fewer.query.y.shape[-1]
    try:
        takes = _one(case, fewer).shape[-1] == ways
    except Exception:  # whatever a learner refuses it by
        takes = False
    declared = case.learner.fixed_ways
    _require(
        takes != declared,
        f"fixed_ways={declared} is declared, but a task of {ways} ways {'works' if takes else 'fails'}; "
        f"declare fixed_ways={not declared}.",
    )


def check_no_global_randomness(case: Case) -> None:
    """In eval mode a learner neither moves the global random state nor depends on it."""
    numpy_before, torch_before = np.random.get_state(legacy=False), torch.get_rng_state()
    first = _predictions(case)
    numpy_same = str(np.random.get_state(legacy=False)) == str(numpy_before)
    unmoved = numpy_same and torch.equal(torch.get_rng_state(), torch_before)
    _require(unmoved, "adapt and predict must not use global random state in eval mode. Use a generator or a buffer.")
    python_before = random.getstate()
    random.seed(1)  # whether Python's own state moves is not asked: type checkers draw from it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        second = _predictions(case)
    random.setstate(python_before)
    _equal(first, second, "predictions must not depend on the global seed in eval mode.")


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_state_is_tensors,
    check_adapt_and_predict_are_pure,
    check_state_is_all_that_is_remembered,
    check_state_survives_saving,
    check_update,
    check_batch_equals_loop,
    check_encode_is_rowwise,
    check_gradient_reaches_every_parameter,
    check_meta_gradient,
    check_unlabelled_examples,
    check_transductive,
    check_order_sensitive,
    check_fixed_ways,
    check_no_global_randomness,
)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ContractError(message)


def _distance(one: Tensor, other: Tensor, scale: float = 0.0) -> float:
    if one.shape != other.shape:
        return float("inf")
    one, other = one.double(), other.double()  # of integers there is no norm
    return float((one - other).norm()) / max(float(other.norm()), scale, 1e-12)


def _equal(one: Tensor, other: Tensor, promise: str, scale: float = 0.0) -> None:
    distance = _distance(one.detach(), other.detach(), scale)
    _require(distance < _CLOSE, f"{promise} Found a relative difference of {distance:.1e}.")


def _declared(flag: str, case: Case, one: Tensor, other: Tensor, change: str) -> None:
    """Require that predictions differ exactly where the learner declares that they may."""
    finite = bool(one.isfinite().all() and other.isfinite().all())
    _require(finite, f"predictions must be finite; found some that are not, at the latest after {change}.")
    declared, distance = bool(getattr(case.learner, flag)), _distance(one.detach(), other.detach())
    differs = not distance < _CLOSE
    _require(
        differs == declared,
        f"{flag}={declared} is declared, but predictions differ by {distance:.1e} after {change}; mend it, or declare "
        f"{flag}={not declared}.",
    )


def _first(case: Case) -> Episode:
    return case.learner._encode_listed(unstack(case.tasks)[:1])[0]


def _rows(batch: Batch, rows: Tensor, columns: int) -> Batch:
    return Batch(map_leaves(lambda leaf: leaf[rows], batch.x), batch.y[rows, :columns])


def _one(case: Case, task: Episode) -> Tensor:
    return case.learner.predict(case.learner.adapt(task.support), task.query.x)


def _predictions(case: Case) -> Tensor:
    with torch.no_grad():
        predictions: Tensor = case.learner.predictions(case.tasks)
    return predictions


def _another(x: Tensor) -> Tensor:
    """Return one more example: half the last one, or the last one itself where it is of integers."""
    return x.flip(0)[:1] * 0.5 if x.is_floating_point() else x.flip(0)[:1]


def _is_classification(tasks: Episode) -> bool:
    # Sentences of a story, say, have no labels; their y has no columns, and the queries alone tell.
    return all(_are_labels(batch.y) for batch in tasks if batch.y.shape[-1])


def _are_labels(y: Tensor) -> bool:
    return bool(((y == 0) | (y == 1)).all() and (y.sum(-1) <= 1).all() and y.shape[-1] > 1)


def _meta_loss(case: Case, tasks: Any) -> Tensor:
    # Seeded, so that a learner with dropout is the same function at every evaluation.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return case.learner.meta_loss(tasks)


def _gradients(case: Case, tasks: Any) -> dict[str, Tensor]:
    named = {name: p for name, p in case.learner.named_parameters() if p.requires_grad}
    if not named:
        return {}  # nothing is meta-learned, as in a nearest mean of raw inputs
    loss = _meta_loss(case, tasks)
    if not loss.requires_grad:  # nothing is reached, as where encode runs without gradients
        return {}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(named, found, strict=True) if gradient is not None}
