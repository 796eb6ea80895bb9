"""An audit of the meta-gradient through a model of your own: is it exact, and what stands in its way?"""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kshot.audit.inspection import (
    NOT_FINITE,
    dropout_findings,
    missing_derivative,
    purity_findings,
    reach_findings,
    sharing_findings,
    vmap_findings,
)
from kshot.audit.paths import (
    PATHS,
    Failure,
    PlainWeightNorm,
    Problem,
    attempt,
    difference,
    gradients_by,
    kshot_gradients,
    slope_error,
    textbook_loss,
    torch_func_loss,
)
from kshot.audit.records import Audit as Audit
from kshot.audit.records import Finding as Finding
from kshot.audit.records import PathError as PathError
from kshot.batching import map_leaves
from kshot.core import Episode
from kshot.losses import Loss
from kshot.validation import check_task
from kshot.weights import Weights

__all__ = ["check_meta_gradient"]

Failures: TypeAlias = dict[str, list[str]]  # the paths that a cause stops

_PLAIN = "plain autograd"
_EXACT = 1e-10  # relative to plain autograd, in float64: far above rounding, far below any real difference
_CLOSE = 1e-5  # relative to finite differences
_VISIBLE = 1e-6  # of what torch.func gets wrong
_GRAVITY = ("wrong", "slow", "note")


def check_meta_gradient(
    model: nn.Module, loss: Loss, batch: Episode, *, lr: float = 0.1, steps: Sequence[int] = (1, 5)
) -> Audit:
    """Audit the meta-gradient through gradient steps on a model, in float64 and on a copy.

    The judge is plain autograd in a loop over tasks, as textbooks write MAML, which finite differences judge in turn.
    Against it stand MAML's exact modes, with tasks in vmap and one at a time. A fault of the model raises nothing: it
    is a finding, with its remedy.

    Args:
        model: any module; its output is what the loss takes. It is audited in the mode it is in, train or eval.
        loss: what support and query predictions are judged by.
        batch: a few stacked tasks; random inputs will do.
        lr: the inner step size.
        steps: numbers of inner steps.

    Raises:
        ValueError: ``batch`` is not an Episode of stacked tasks, or ``steps`` are not one or more positive numbers.

    >>> from kshot.core import Batch
    >>> from kshot.losses import mean_squared_error
    >>> rows = Batch(torch.randn(2, 6, 3), torch.randn(2, 6, 1))
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    >>> check_meta_gradient(model, mean_squared_error, Episode(rows, rows)).exact
    True
    """
    check_task(batch, axes=("tasks", "n"))
    if min(steps, default=0) < 1:
        raise ValueError(f"steps must be one or more numbers of at least 1, such as (1, 5); found {tuple(steps)}.")
    bare = attempt(lambda: _called(model, loss, batch, lr))
    if isinstance(bare, Failure):
        remedy = "Its output must be what the loss takes, for the x and y of a task."
        return Audit((), (Finding("wrong", "forward", f"it cannot be copied and called. {bare.cause}", remedy),))
    findings = [*sharing_findings(bare.model), *dropout_findings(bare.model)]
    with _float64_by_default(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*batching rule.*", UserWarning)  # a finding says it
        exact = attempt(lambda: _in_float64(bare))
        if isinstance(exact, Failure):
            remedy = "Give new tensors the dtype of x (x.new_zeros, dtype=x.dtype), and drop .float()."
            wrong = Finding(
                "wrong", "forward", f"it does not run in float64, so nothing is checked. {exact.cause}", remedy
            )
            return Audit((), (wrong, *findings))
        errors, failures, doubts = _compared(exact, steps)
        findings += doubts
        findings += _inspected(
            exact, max(steps), batched=not any("mixed, vmap" in paths for paths in failures.values())
        )
    findings += _failure_findings(failures, attempt(lambda: missing_derivative(bare)))
    return Audit(tuple(errors), tuple(sorted(findings, key=lambda finding: _GRAVITY.index(finding.severity))))


def _called(model: nn.Module, loss: Loss, batch: Episode, lr: float) -> Problem:
    """Copy a model and call it once, which also gives lazy layers their shapes."""
    problem = Problem(copy.deepcopy(model), loss, batch, lr)
    with torch.no_grad():
        textbook_loss(problem, steps=0)
    problem.model.requires_grad_()
    return problem


def _in_float64(bare: Problem) -> Problem:
    """Copy to float64, away from special points such as zero biases, and call once."""
    twin = copy.deepcopy(bare.model).double()
    tasks = map_leaves(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, bare.tasks)
    problem = Problem(twin, bare.loss, tasks, bare.lr)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        value = textbook_loss(problem, steps=0).item()
    if not math.isfinite(value):
        raise ValueError(f"The loss is {value}.")
    return problem


@contextmanager
def _float64_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # for tensors that a model makes as it runs
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _compared(problem: Problem, steps: Sequence[int]) -> tuple[list[PathError], Failures, list[Finding]]:
    """Measure every path at every number of steps; return also what stopped some, and what no path can be judged by."""
    errors: list[PathError] = []
    failures: Failures = {}
    doubts: list[Finding] = []
    for count in steps:
        outcomes = {_PLAIN: attempt(partial(_textbook_gradients, problem, count))}
        for mode, batched in PATHS:
            name = f"{mode}, {'vmap' if batched else 'loop'}"
            outcomes[name] = attempt(partial(kshot_gradients, problem, count, mode, batched))
        for name, outcome in outcomes.items():
            if isinstance(outcome, Failure) and name not in failures.setdefault(outcome.cause, []):
                failures[outcome.cause].append(name)
        if not isinstance(truth := outcomes[_PLAIN], Failure):
            doubts += _doubts(truth, count)
        errors += _errors(problem, count, outcomes)
    return errors, failures, doubts


def _doubts(truth: Weights, steps: int) -> Iterator[Finding]:
    """Say where the meta-gradient itself is nothing that a path could be compared with."""
    where = f"meta-gradient, {steps} step{'s' if steps > 1 else ''}"
    if not all(gradient.isfinite().all() for gradient in truth.values()):
        yield Finding("wrong", where, "the gradient is not finite.", f"{NOT_FINITE} Or lower the inner step size.")
    elif truth and not any(gradient.any() for gradient in truth.values()):
        remedy = "Audit it on tasks whose loss depends on its parameters: classes need two ways."
        yield Finding("wrong", where, "the gradient is zero, so nothing is checked.", remedy)


def _errors(problem: Problem, steps: int, outcomes: dict[str, Weights | Failure]) -> Iterator[PathError]:
    truth = outcomes.pop(_PLAIN)
    for name, outcome in outcomes.items():
        if isinstance(truth, Failure):
            yield PathError(name, steps, _slope_error(problem, steps, outcome), _CLOSE)
        else:
            error = math.inf if isinstance(outcome, Failure) else difference(outcome, truth)
            yield PathError(name, steps, error, _EXACT)
    if not isinstance(truth, Failure):
        yield PathError("finite differences", steps, _slope_error(problem, steps, truth), _CLOSE)


def _textbook_gradients(problem: Problem, steps: int) -> Weights:
    with sdpa_kernel(SDPBackend.MATH), PlainWeightNorm():  # fused attention has no second derivatives
        return gradients_by(partial(textbook_loss, steps=steps), problem)


def _slope_error(problem: Problem, steps: int, gradients: Weights | Failure) -> float:
    if isinstance(gradients, Failure):
        return math.inf
    outcome = attempt(lambda: slope_error(problem, partial(textbook_loss, steps=steps, create_graph=False), gradients))
    return math.inf if isinstance(outcome, Failure) else outcome


def _inspected(problem: Problem, steps: int, batched: bool) -> Iterator[Finding]:
    """Yield what every inspection finds; ``batched`` says whether those of vmap are due."""
    yield from _inspected_by(purity_findings, problem)
    yield from _inspected_by(reach_findings, problem)
    if batched:
        yield from _inspected_by(vmap_findings, problem)
        yield from _inspected_by(partial(_torch_findings, steps=steps), problem)


def _inspected_by(inspect: Callable[[Problem], Iterator[Finding]], problem: Problem) -> list[Finding]:
    outcome = attempt(lambda: list(inspect(problem)))
    if isinstance(outcome, Failure):
        return [Finding("wrong", "forward", f"it could not be inspected. {outcome.cause}")]
    return outcome


def _torch_findings(problem: Problem, steps: int) -> Iterator[Finding]:
    """Say what ``torch.func`` without kshot would get wrong."""
    truth = attempt(lambda: _textbook_gradients(problem, steps))
    if isinstance(truth, Failure):
        return
    with sdpa_kernel(SDPBackend.MATH):
        alone = attempt(lambda: gradients_by(partial(torch_func_loss, steps=steps), problem))
    if isinstance(alone, Failure):
        yield Finding(
            "note", "torch.func", f"vmap with a gradient inside cannot run this model; kshot can. {alone.cause}"
        )
    elif (error := difference(alone, truth)) > _VISIBLE:
        what = f"torch.func.vmap with a reverse pass is off by {100 * error:.2g} % on this model at {steps} steps"
        yield Finding("note", "torch.func", f"{what}; kshot is not.")


def _failure_findings(failures: Failures, missing: tuple[str, str] | Failure | None) -> Iterator[Finding]:
    """Say what stopped some paths, each cause once."""
    if isinstance(missing, tuple):
        derivative, layer = missing
        kernel = derivative.removesuffix("_backward")  # whose forward derivative is missing too, more often than not
        explained = [failures.pop(cause) for cause in list(failures) if kernel in cause]
        what = f"{derivative} has no derivative, which the second order needs"
        if any(paths != [_PLAIN] for paths in explained):
            remedy = 'Write it in operations that have one, or use MAML(..., differentiate="first_order").'
            yield Finding("wrong", layer, f"{what}.", remedy)
        else:
            yield Finding("note", layer, f"{what}; kshot's plain operations stand in for it.")
    for cause, paths in failures.items():
        batched = all(path.endswith("vmap") for path in paths)
        remedy = "Pass tasks as a list of Episodes: then they run one at a time." if batched else ""
        yield Finding("note" if paths == [_PLAIN] else "wrong", "; ".join(paths), f"cannot run. {cause}", remedy)
