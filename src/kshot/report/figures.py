"""Figures as SVG inside the page, drawn twice: in the colours of the light and of the dark scheme."""

import hashlib
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import Tensor

from kshot.core import Batch
from kshot.losses import SHARES

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("reports draw their figures with matplotlib: pip install 'kshot[report]'") from error

__all__ = ["Draw", "Palette", "Panel", "learning_curve", "save_figure", "save_wave_figure", "wave_figure"]


class Palette(NamedTuple):
    """The colours of one scheme; ``main`` and ``other`` are read as text too."""

    ink: str
    muted: str
    line: str
    main: str
    other: str
    truth: str
    curves: tuple[str, ...]  # from the first to the last: ever clearer


_PALETTES = {
    "light": Palette(
        "#1c2230", "#5c6575", "#d9dde4", "#2f5fc4", "#b0580c", "#e0a458", ("#7d8798", "#6f9be8", "#2f5fc4", "#1b3a80")
    ),
    "dark": Palette(
        "#e8eaf0", "#a3acbb", "#343b48", "#8db2ff", "#f0ab5c", "#b98036", ("#8f99a9", "#5f86d6", "#8db2ff", "#d3e1ff")
    ),
}
Draw: TypeAlias = Callable[[Axes, Palette], Any]  # what it returns is not looked at


@dataclass(frozen=True, eq=False)
class Panel:
    """One learner on one wave.

    Args:
        title: the learner.
        x: ``(n,)`` or ``(n, 1)`` where the wave and the curves are drawn.
        truth: the true wave there.
        support: the points that the learner adapts to.
        curves: predictions there by name, in the order of adaptation. The first is before it, and dashed.
        band: the lower and the upper edge of a band there; none by default.
    """

    title: str
    x: Tensor
    truth: Tensor
    support: Batch
    curves: Mapping[str, Tensor]
    band: tuple[Tensor, Tensor] | None = None


def wave_figure(panels: Sequence[Panel]) -> str:
    """Return learners on a regression task as HTML, side by side on one scale, after figure 2 of Finn et al. 2017.

    Raises:
        ValueError: there is no panel.

    >>> import torch
    >>> x = torch.linspace(-5, 5, 100)
    >>> panel = Panel("MAML", x, x.sin(), Batch(x[::20], x[::20].sin()), {"before": 0 * x, "after 1 step": 0.9 * x.sin()})
    >>> wave_figure([panel]).count("<svg")
    2
    """
    if not panels:
        raise ValueError("wave_figure needs at least one panel; found none.")
    limits = _common_limits(panels)
    return _figure([_plot((4.2, 3.6), _described(panel), _wave(panel, limits)) for panel in panels])


def save_wave_figure(folder: str | Path, name: str, panels: Sequence[Panel], columns: int | None = None) -> None:
    """Write ``wave_figure`` as two files, NAME-light.svg and NAME-dark.svg, for pages that are not a report."""
    limits = _common_limits(panels)
    across = len(panels) if columns is None else columns
    inches = (4.2 * across, 3.6 * -(-len(panels) // across))
    save_figure(folder, name, inches, [_wave(panel, limits) for panel in panels], columns)


def save_figure(
    folder: str | Path, name: str, inches: tuple[float, float], draws: Sequence[Draw], columns: int | None = None
) -> None:
    """Write a figure of your own in the look of the reports, as two files, NAME-light.svg and NAME-dark.svg.

    Args:
        folder: where the files go.
        name: what they are called.
        inches: width and height of the whole.
        draws: one function for each panel, which draws on the axes in the colours of the palette.
        columns: panels side by side; all by default.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(folder, "line", (3.0, 2.0), [lambda axes, palette: axes.plot([0, 1], color=palette.main)])
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['line-dark.svg', 'line-light.svg']
    """
    for scheme, palette in _PALETTES.items():
        Path(folder, f"{name}-{scheme}.svg").write_text(
            _svg(inches, palette, *draws, columns=columns), encoding="utf-8"
        )


def learning_curve(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return the validation metric, with its 95 % band, and the loss over minutes of training as HTML.

    Args:
        metrics: lines of a run's ``metrics.jsonl``, as ``kshot.run_folder.read_lines`` returns them.

    Raises:
        ValueError: there is no line.

    >>> lines = [{"step": s, "seconds": 60.0 * s, "loss": 1 / s, "val_accuracy": 0.9, "val_ci95": 0.01} for s in (1, 2, 3)]
    >>> learning_curve(lines).count("<svg")
    4
    """
    if not metrics:
        raise ValueError("learning_curve needs at least one line of metrics; found none. Leave the figure out instead.")
    loss = _Series("Training loss", [(_minutes(line), float(line["loss"]), 0.0) for line in metrics])
    name = next((key for line in metrics for key in line if key.startswith("val_") and key != "val_ci95"), None)
    if name is None:
        return _figure([_plot((4.8, 2.8), str(loss), _curve(loss, "muted"))])
    validation = _validation(name, [line for line in metrics if name in line])
    plots = (
        _plot((4.8, 2.8), str(validation), _curve(validation, "main")),
        _plot((3.0, 2.8), str(loss), _curve(loss, "muted")),
    )
    return _figure(plots, "learning")


class _Series(NamedTuple):
    title: str
    points: Sequence[tuple[float, float, float]]  # minutes, value, half-width of its interval

    def __str__(self) -> str:
        minutes, value, width = self.points[-1]
        interval = f" ± {width:.2g}" if width else ""
        return f"{self.title}: {value:.4g}{interval} after {minutes:.1f} minutes"


def _validation(name: str, lines: Sequence[Mapping[str, Any]]) -> _Series:
    metric = name.removeprefix("val_")
    scale, unit = (100.0, " in %") if metric in SHARES else (1.0, "")
    return _Series(
        f"Validation {metric}{unit}",
        [(_minutes(line), scale * line[name], scale * line["val_ci95"]) for line in lines],
    )


def _minutes(line: Mapping[str, Any]) -> float:
    return float(line["seconds"] / 60)


def _curve(series: _Series, colour: Literal["main", "muted"]) -> Draw:
    minutes, values, widths = zip(*series.points, strict=True)
    bounded = [width if math.isfinite(width) else 0.0 for width in widths]  # a single task has no interval
    low, high = ([v + sign * w for v, w in zip(values, bounded, strict=True)] for sign in (-1, 1))

    def draw(axes: Axes, palette: Palette) -> None:
        line = getattr(palette, colour)
        axes.fill_between(minutes, low, high, color=line, alpha=0.2, linewidth=0)
        axes.plot(minutes, values, color=line, marker="o" if len(values) < 25 else None)
        axes.set_title(series.title)
        axes.set_xlabel("minutes of training")
        axes.set_xlim(left=0)

    return draw


def _described(panel: Panel) -> str:
    curves = ", ".join(panel.curves)
    return f"{panel.title}: the true wave, {len(panel.support.y)} support points, and the learner's curves: {curves}"


def _wave(panel: Panel, limits: tuple[float, float]) -> Draw:
    def draw(axes: Axes, palette: Palette) -> None:
        x = _floats(panel.x)
        axes.plot(x, _floats(panel.truth), color=palette.truth, linewidth=4, alpha=0.75, label="true wave")
        given = (_floats(values) for values in panel.support)
        axes.plot(*given, "^", color=palette.ink, markersize=6, zorder=3, label="support points")
        last = len(panel.curves) - 1
        for i, (name, curve) in enumerate(panel.curves.items()):
            # Spread over the palette, so that the first is always the faintest and the last the clearest.
            colour = palette.curves[round(i * (len(palette.curves) - 1) / max(last, 1))]
            style = "--" if i == 0 else "-" if i == last else "-."
            axes.plot(x, _floats(curve), style, color=colour, label=name)
        if panel.band is not None:
            low, high = map(_floats, panel.band)
            axes.fill_between(x, low, high, color=palette.main, alpha=0.2, linewidth=0)
        axes.set_title(panel.title)
        axes.set_ylim(limits)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)

    return draw


def _common_limits(panels: Sequence[Panel]) -> tuple[float, float]:
    truth = [value for panel in panels for value in (*_floats(panel.truth), *_floats(panel.support.y))]
    lines = [line for panel in panels for line in (*panel.curves.values(), *(panel.band or ()))]
    drawn = [*truth, *filter(math.isfinite, (value for line in lines for value in _floats(line)))]
    low, high = min(truth), max(truth)
    room = 1.5 * (high - low) or 1.0  # for curves that leave the wave: one that diverges shall not flatten the others
    margin = 0.03 * room
    return max(min(drawn), low - room) - margin, min(max(drawn), high + room) + margin


def _floats(values: Tensor) -> list[float]:
    floats: list[float] = values.detach().double().cpu().flatten().tolist()
    return floats


def _figure(plots: Sequence[str], kind: str = "") -> str:
    return f'<figure class="plots {kind}">\n' + "\n".join(plots) + "\n</figure>"


def _plot(inches: tuple[float, float], text: str, draw: Draw) -> str:
    """Return one plot in every palette; the page shows the one that fits its colour scheme."""
    svgs = ((name, _embedded(_svg(inches, palette, draw))) for name, palette in _PALETTES.items())
    drawn = (f'<div class="{name}-only">{svg}</div>' for name, svg in svgs)
    return f'<div class="plot" role="img" aria-label="{escape(text)}">{"".join(drawn)}</div>'


def _svg(inches: tuple[float, float], palette: Palette, *draws: Draw, columns: int | None = None) -> str:
    # Figure rather than pyplot, whose list of open figures would be shared with the caller.
    with matplotlib.rc_context(_settings(palette)):
        figure = Figure(figsize=inches, layout="constrained")
        across = len(draws) if columns is None else columns
        for place, draw in enumerate(draws, 1):
            axes = figure.add_subplot(-(-len(draws) // across), across, place)
            axes.set_axisbelow(True)
            draw(axes, palette)
        buffer = io.StringIO()
        unsigned = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=unsigned)
    return buffer.getvalue()


def _settings(palette: Palette) -> Any:
    return {
        "svg.fonttype": "none",  # text stays text, in the page's font
        "svg.hashsalt": "kshot",  # the same figure is the same bytes
        "text.usetex": False,
        "text.parse_math": False,  # a dollar sign in a name is one
        "text.color": palette.ink,
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.labelcolor": palette.muted,
        "axes.edgecolor": palette.line,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": palette.line,
        "grid.linewidth": 0.7,
        "xtick.color": palette.line,
        "ytick.color": palette.line,
        "xtick.labelcolor": palette.muted,
        "ytick.labelcolor": palette.muted,
        "ytick.major.size": 0,
        "lines.linewidth": 1.8,
        "lines.markersize": 4,
        "legend.frameon": False,
    }


def _embedded(svg: str) -> str:
    """Return the svg element alone, with ids that no other figure of a page has."""
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg[svg.index("<svg") :]).strip()
    prefix = "f" + hashlib.sha256(svg.encode()).hexdigest()[:10]
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
