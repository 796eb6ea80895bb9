"""Draw lines with their 95 % bands and their names at the ends: what the figures of these experiments share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from kshot.evaluation import Evaluation
from kshot.losses import SHARES

FIGURES = Path(__file__).parents[1] / "docs" / "figures"


def line(
    axes: Axes, x: Sequence[float], results: Sequence[Evaluation], colour: str, name: str, at: int = -1, lift: int = 0
) -> None:
    """Draw means and intervals, and the name of the line to the right of one of its points; shares in percent."""
    scale = 100 if results[0].metric in SHARES else 1
    means = [scale * result.mean for result in results]
    low, high = ([m + sign * scale * r.ci95 for m, r in zip(means, results, strict=True)] for sign in (-1, 1))
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, means, "o-", color=colour)
    place = {"xytext": (8, lift), "textcoords": "offset points", "va": "center", "annotation_clip": False}
    axes.annotate(name, (x[at], means[at]), color=colour, **place)


def lines(
    axes: Axes, x: Sequence[float], results: Mapping[str, Sequence[Evaluation]], looks: Sequence[tuple[str, int]]
) -> None:
    """Draw a line for each name, of a colour, its name lifted by so many points."""
    for (name, of_name), (colour, lift) in zip(results.items(), looks, strict=True):
        line(axes, x, of_name, colour, name, lift=lift)
