"""Progress on a terminal: accuracy, tasks per second and time left; elsewhere plain lines, of validations and minutes."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from kshot.training import Report, Watch

__all__ = ["show_progress"]


@contextmanager
def show_progress(label: str, console: Console | None = None) -> Iterator[Watch]:
    """Show the progress of ``train``: pass what this yields as ``watch``.

    >>> from kshot.training import train  # doctest: +SKIP
    >>> with show_progress("training") as watch:  # doctest: +SKIP
    ...     train(learner, tasks, minutes=3, watch=watch)
    """
    console = Console() if console is None else console
    if not console.is_terminal:
        yield _lines(label, console)
        return
    # Two lines beside the bar, so that 80 columns hold all of it.
    columns = BarColumn(None), TextColumn("{task.description}: {task.fields[best]}\n{task.fields[pace]}")
    with Progress(*columns, console=console) as bar:
        best, improved = "not validated yet", False
        row = bar.add_task(label, total=1.0, best=best, pace="")

        def watch(report: Report) -> None:
            nonlocal best, improved
            improved = improved or report.improved
            result = report.validation
            if result is not None and (
                report.improved or not improved
            ):  # a resumed run may never beat its earlier best
                best = f"{'best' if report.improved else 'last'} {result.metric} {result.short()}"
            bar.update(row, completed=report.progress, best=best, pace=_pace(report))

        yield watch


def _pace(report: Report) -> str:
    left = report.seconds * (1 - report.progress) / max(report.progress, 1e-9)
    return (
        f"{report.progress:4.0%}  step {report.step:,}  loss {report.loss:.3f}  "
        f"{report.tasks / max(report.seconds, 1e-9):,.1f} tasks/s  {_clock(left)} left"
    )


def _lines(label: str, console: Console) -> Watch:
    last = 0.0  # second of the last line: whoever looks into a log sees within a minute whether the run is alive

    def watch(report: Report) -> None:
        nonlocal last
        result = report.validation
        if result is None and report.seconds - last < 60:
            return
        last = report.seconds
        validation = "" if result is None else f"  validation {result.metric} {result.short()}"
        console.print(f"{label}: {_pace(report)}{validation}", highlight=False, soft_wrap=True)

    return watch


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
