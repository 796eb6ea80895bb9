"""``kshot doctor``."""

import math

import torch
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from kshot.audit import Audit, PathError, check_meta_gradient
from kshot.cli.load_module import load_module
from kshot.cli.options import Doctor
from kshot.core import Batch, Episode, one_hot
from kshot.losses import Loss, cross_entropy, mean_squared_error
from kshot.memory_estimate import Plan, estimate, fitting_plan

__all__ = ["run_doctor"]

_COLOURS = {"wrong": "red", "slow": "yellow", "note": "cyan"}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def run_doctor(command: Doctor) -> None:
    """Audit a model, estimate its memory, and leave with exit code 1 if its meta-gradient is not exact."""
    budget = None if command.budget is None else _bytes(command.budget)
    model, tasks = load_module(command.model), _tasks(command)
    loss = cross_entropy if command.targets is None else mean_squared_error
    _check_output(model, tasks)
    console = Console()
    with console.status("taking meta-gradients along every path"):
        audit = check_meta_gradient(model, loss, tasks, lr=command.inner_lr, steps=command.steps)
    _print_audit(audit, command.steps, console)
    if any(one.path == "mixed, vmap" and math.isfinite(one.error) for one in audit.errors):
        _print_memory(command, model, loss, tasks, budget, console)
    if not audit.exact:
        raise SystemExit(1)


def _tasks(command: Doctor) -> Episode:
    """Draw random tasks of the shape that the command names."""
    shots = (1 if command.targets is None else 10) if command.shots is None else command.shots
    needed = {"tasks": command.tasks, "ways": command.ways, "shots": shots, "queries": command.queries}
    counts = {**needed, "targets": command.targets, "integers": command.integers}
    if below := [f"--{name} {count}" for name, count in counts.items() if count is not None and count < 1]:
        raise ValueError(f"counts must be at least 1; found {', '.join(below)}.")
    if command.targets is None and command.ways == 1:
        raise ValueError("--ways 1: of a single class the loss is constant. For a model of one output use --targets 1.")
    generator = torch.Generator().manual_seed(0)
    return Episode(*(_examples(command, count, generator) for count in (shots, command.queries)))


def _examples(command: Doctor, count: int, generator: torch.Generator) -> Batch:
    shape = _shape(command.input)
    rows = count * (command.ways if command.targets is None else 1)
    size = (command.tasks, rows, *shape)
    x = torch.randn(size, generator=generator)
    if command.integers is not None:
        x = torch.randint(command.integers, size, generator=generator)
    if command.targets is not None:
        return Batch(x, torch.randn((*size[:2], command.targets), generator=generator))
    return Batch(x, one_hot(torch.arange(rows) % command.ways, command.ways).expand(command.tasks, -1, -1))


def _shape(text: str) -> list[int]:
    try:
        shape = [int(part) for part in text.split(",")]
    except ValueError:
        shape = [0]
    if min(shape) < 1:
        raise ValueError(f"--input must be the shape of one example, such as 1,28,28; found {text!r}.")
    return shape


def _bytes(text: str) -> int:
    """Read a number of bytes.

    >>> _bytes("4GB"), _bytes("1.5 kb")
    (4000000000, 1500)
    """
    number = text.upper().removesuffix("B").rstrip()
    unit = number[-1:] if number[-1:] in _UNITS else ""
    try:
        return int(float(number.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, OverflowError):
        raise ValueError(f"--budget must be a number of bytes, such as 500MB or 4GB; found {text!r}.") from None


def _check_output(model: nn.Module, tasks: Episode) -> None:
    """Refuse a model whose output does not fit the targets, which a loss might broadcast."""
    (x, y), _ = tasks
    try:
        with torch.no_grad():
            output = model(x[0])
    except Exception as error:  # whatever a model raises
        given = f"{x.dtype} of {tuple(x[0].shape)}"
        raise ValueError(
            f"the model cannot be called on {given}: {error} Say its --input, and --integers N for tokens."
        ) from None
    if not isinstance(output, Tensor):
        raise ValueError(
            f"the model must return one tensor; found {type(output).__name__}. Wrap it in a module that does."
        )
    if output.shape != y[0].shape:
        raise ValueError(
            f"the model must map {tuple(x[0].shape)} to {tuple(y[0].shape)}, a row for each example; found "
            f"{tuple(output.shape)}. Say --ways or --targets as the model has them."
        )


def _print_audit(audit: Audit, steps: tuple[int, ...], console: Console) -> None:
    if audit.errors:
        table = Table("meta-gradient in float64: relative error", *_columns(steps))
        for path in dict.fromkeys(one.path for one in audit.errors):
            errors = {one.steps: one for one in audit.errors if one.path == path}
            table.add_row(path, *(_cell(errors.get(count)) for count in steps))
        console.print(table)
    for finding in audit.findings:
        console.print(Text.assemble((f"{finding.severity} ", _COLOURS[finding.severity]), (finding.where, "bold")))
        console.print(Padding(Text(f"{finding.what} {finding.remedy}".rstrip()), (0, 0, 0, 2), expand=False))
    console.print(audit.verdict, highlight=False)


def _cell(error: PathError | None) -> str:
    return "" if error is None else f"[{'green' if error.exact else 'red'}]{error.error:.1e}"


def _print_memory(
    command: Doctor, model: nn.Module, loss: Loss, tasks: Episode, budget: int | None, console: Console
) -> None:
    table = Table(f"peak memory of {command.tasks} tasks", *_columns(command.steps))
    with console.status("estimating memory"):
        for plan in (Plan("reverse"), Plan(), Plan(chunk_size=1), Plan("first_order")):
            table.add_row(str(plan), *(_estimate(model, loss, tasks, count, plan) for count in command.steps))
    console.print(table)
    if budget is not None:
        found = fitting_plan(model, loss, tasks, max(command.steps), budget)
        advice = f"nothing fits into {_size(budget)}" if found is None else f"{_size(budget)} are enough for: {found}"
        console.print(f"At {_columns((max(command.steps),))[0]} {advice}", highlight=False)


def _columns(steps: tuple[int, ...]) -> list[str]:
    return [f"{count} step{'s' if count > 1 else ''}" for count in steps]


def _estimate(model: nn.Module, loss: Loss, tasks: Episode, steps: int, plan: Plan) -> str:
    try:
        return _size(estimate(model, loss, tasks, steps, plan))
    except RuntimeError:  # as where the second derivative of an operation is missing: the audit says so
        return "cannot run"


def _size(count: int) -> str:
    """Write a number of bytes.

    >>> _size(4_200_000_000), _size(999)
    ('4.2 GB', '999 B')
    """
    for unit in ("T", "G", "M", "K"):
        if count >= _UNITS[unit]:
            return f"{count / _UNITS[unit]:.1f} {unit.replace('K', 'k')}B"
    return f"{count} B"
