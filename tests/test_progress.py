import io
import re
from collections.abc import Iterator

import pytest
import torch
from rich.console import Console

from kshot.evaluation import Evaluation
from kshot.progress import show_progress
from kshot.training import Report


def accuracy(score: float) -> Evaluation:
    return Evaluation("accuracy", True, torch.full((4,), score, dtype=torch.float64))


def reports() -> Iterator[Report]:
    """Yield 100 steps of 4 tasks in 50 seconds, validated at steps 40 and 80, the second worse than the first."""
    for step in range(1, 101):
        result = {40: accuracy(0.75), 80: accuracy(0.5)}.get(step)
        yield Report(step, 1 / step, step / 2, step / 100, 4 * step, result, improved=step == 40)


def shown(terminal: bool, steps: int = 100, width: int = 80, label: str = "training") -> str:
    file = io.StringIO()
    with show_progress(label, Console(file=file, force_terminal=terminal, width=width)) as watch:
        for report in reports():
            if report.step <= steps:
                watch(report)
    return file.getvalue()


def test_without_a_terminal_there_is_one_plain_line_for_each_validation() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines == [
        "training:  40%  step 40  loss 0.025  8.0 tasks/s  0:30 left  validation accuracy 75.00 % ± 0.00",
        "training:  80%  step 80  loss 0.013  8.0 tasks/s  0:10 left  validation accuracy 50.00 % ± 0.00",
    ]


def test_without_a_terminal_a_minute_without_validation_has_a_line_too() -> None:
    file = io.StringIO()
    with show_progress("training", Console(file=file, force_terminal=False)) as watch:
        for step in range(1, 11):  # of 25 seconds, validated at the fourth
            watch(Report(step, 0.5, 25.0 * step, step / 10, step, accuracy(0.75) if step == 4 else None))
    steps = [(line.split("step ")[1].split()[0], "validation" in line) for line in file.getvalue().splitlines()]
    assert steps == [("3", False), ("4", True), ("7", False), ("10", False)]


def test_without_a_terminal_a_narrow_page_does_not_break_lines() -> None:
    assert len(shown(terminal=False, width=20).splitlines()) == 2


def last_frame(text: str) -> str:
    erased = text.split("\x1b[2K")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", erased[-1])


@pytest.mark.parametrize("label", ["training", "learning to learn characters"])
@pytest.mark.parametrize("width", [80, 160])
def test_on_a_terminal_there_is_a_bar_with_accuracy_pace_and_time_left(width: int, label: str) -> None:
    frame = last_frame(shown(True, 60, width, label))
    assert "━" in frame
    assert f"{label}: " in frame
    assert "60%  step 60" in frame
    assert "8.0 tasks/s" in frame
    assert "0:20 left" in frame
    assert "best accuracy 75.00 % ± 0.00" in frame


def test_on_a_terminal_the_best_validation_stays_in_sight_when_a_later_one_is_worse() -> None:
    assert "best accuracy 75.00 %" in last_frame(shown(terminal=True))


def test_on_a_terminal_it_says_that_nothing_is_validated_yet() -> None:
    assert "not validated yet" in last_frame(shown(terminal=True, steps=39))


def test_on_a_terminal_the_last_validation_is_shown_where_none_beats_that_of_an_earlier_sitting() -> None:
    file = io.StringIO()
    with show_progress("training", Console(file=file, force_terminal=True, width=80)) as watch:
        for step, score in ((50, 0.75), (51, 0.5)):
            watch(Report(step, 0.5, 1.0 * step, step / 100, step, accuracy(score)))
    assert "last accuracy 50.00 % ± 0.00" in last_frame(file.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_the_first_report_may_come_at_no_time(terminal: bool) -> None:
    file = io.StringIO()
    with show_progress("training", Console(file=file, force_terminal=terminal, width=160)) as watch:
        watch(Report(1, 0.5, 0.0, 0.0, 4, accuracy(0.5), improved=True))
    assert "accuracy 50.00 %" in file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_reported_is_no_fault(terminal: bool) -> None:
    shown(terminal, steps=0)
