"""How learners that take gradient steps come on with 20 ways: validation accuracy while they trained.

Drawn from the rows of ``omniglot.py``:

    python benchmarks/curves.py
"""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from kshot.report.figures import Palette, save_figure
from rows import read_rows

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
LEARNERS = (("MAML++", 1), ("ANIL", 1), ("MAML", 1), ("MAML", 5))  # by shots


def main() -> None:
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


def points(row: dict[str, Any]) -> tuple[list[int], list[float]]:
    """Return how many tasks had been seen at each validation of a run, and the accuracy in percent."""
    steps, accuracies = zip(*row["curve"], strict=True)
    return [step * row["training"]["tasks_per_step"] for step in steps], [100 * accuracy for accuracy in accuracies]


if __name__ == "__main__":
    main()
