"""How learners come on where the published schedule is longer than ours: validation accuracy while they trained.

Learners that take gradient steps with 20 ways, and recurrent nets; drawn from the rows of ``omniglot.py`` and
``recurrent.py``:

    python benchmarks/curves.py
"""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from kshot.report.figures import Palette, save_figure
from rows import read_rows

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
LEARNERS = (("MAML++", 1), ("ANIL", 1), ("MAML", 1), ("MAML", 5))  # by shots
FROZEN = "frozen convolutions of prototypical"
RECURRENT = {  # line and label, by labels and what they read
    ("MANN", "one-hot", FROZEN): (":", "one-hot, frozen encoder"),
    ("LSTM", "one-hot", FROZEN): (":", "one-hot, frozen encoder"),
    ("MANN", "one-hot", "raw pixels"): ("-", "one-hot"),
    ("LSTM", "one-hot", "raw pixels"): ("-", "one-hot"),
    ("MANN", "strings", FROZEN): ("-.", "strings, frozen encoder, uneven streams"),
    ("MANN", "strings", "raw pixels"): ("--", "strings"),
}


def main() -> None:
    """Draw both."""
    with_twenty_ways()
    recurrent()


def with_twenty_ways() -> None:
    """Draw the last run of each learner that began with random weights against the tasks that it had learned from."""
    begun = (row for row in read_rows("omniglot") if row["ways"] == 20 and not row["training"].get("encoder_from"))
    rows = {(row["learner"], row["shots"]): row for row in begun}

    def draw(axes: Axes, palette: Palette) -> None:
        looks = ((palette.main, "-"), (palette.muted, "-"), (palette.other, "-"), (palette.other, "--"))
        for key, (colour, dashes) in zip(LEARNERS, looks, strict=True):
            axes.plot(*points(rows[key]), dashes, marker=".", color=colour, label=f"{key[0]}, {key[1]}-shot")
        axes.set_xscale("log")
        axes.set_xlabel("training tasks")
        axes.set_title("Accuracy on 20-way validation tasks, %")
        axes.legend(loc="lower right")

    save_figure(FIGURES, "twenty-ways", (5.6, 3.2), [draw])


def recurrent() -> None:
    """Draw the last run of each recurrent net, of which all take steps of 16 streams."""
    rows = {(row["learner"], row["labels"], row["reads"]): row for row in read_rows("recurrent")}

    def draw(axes: Axes, palette: Palette) -> None:
        for key, (dashes, words) in RECURRENT.items():
            row = rows[key]
            colour = palette.main if row["learner"] == "MANN" else palette.other
            axes.plot(*curve(row), dashes, color=colour, label=f"{row['learner']}, {row['ways']} classes, {words}")
        axes.set_xlabel("training steps, of 16 streams")
        axes.set_title("Accuracy on queries after validation streams, %")
        axes.legend(loc="lower right", fontsize="x-small")

    save_figure(FIGURES, "recurrent-training", (5.6, 4.0), [draw])


def points(row: dict[str, Any]) -> tuple[list[int], list[float]]:
    """Return how many tasks had been seen at each validation of a run, and the accuracy in percent."""
    steps, accuracies = curve(row)
    return [step * row["training"]["tasks_per_step"] for step in steps], accuracies


def curve(row: dict[str, Any]) -> tuple[list[int], list[float]]:
    """Return the step of each validation of a run, and the accuracy in percent."""
    return [step for step, _ in row["curve"]], [100 * accuracy for _, accuracy in row["curve"]]


if __name__ == "__main__":
    main()
