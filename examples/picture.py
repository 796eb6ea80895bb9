"""Draw the picture of the README: five labelled points, and what each learner makes of them.

The tasks are pinwheels: three classes in the plane, the arms of a spiral whose turn and colours are new in every task. Five
labelled points are far too few to draw a spiral, except for a learner that has met other pinwheels. Everything in the
picture is computed: the learners are meta-trained here, in about a minute, and the task is one they never saw.

    python examples/picture.py
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray
from torch import Tensor, nn

from kshot.core import Batch, Episode, Learner, one_hot
from kshot.evaluation import Evaluation, evaluate
from kshot.learners.gradient import MAML
from kshot.learners.metric import Prototypical
from kshot.nets.mlp import MLP
from kshot.progress import show_progress
from kshot.tasks.keys import choose, random_keys, uniform
from kshot.tasks.source import TaskSource
from kshot.training import train

ROOT = Path(__file__).parents[1]
REACH = 1.75  # radius of what a panel shows
PIXELS = 150  # of a panel's regions
DOTS = 40  # query points of each class that are drawn; all of them are counted


class Palette(NamedTuple):
    ink: str
    muted: str
    line: str
    dots: str
    paper: str
    classes: tuple[str, str, str]


PALETTES = {
    "light": Palette("#1c2230", "#5c6575", "#c9ced8", "#a9b0bd", "#ffffff", ("#2f5fc4", "#d9821a", "#b23a7b")),
    "dark": Palette("#e8eaf0", "#a3acbb", "#4a5262", "#6f7889", "#0d1117", ("#7ea8ff", "#f2b35c", "#ea86bd")),
}
MARKERS = "o^s"


class Panel(NamedTuple):
    """A column of the picture: what it is called, the learner, and what it is called before it has adapted."""

    family: str
    name: str
    before: str
    learner: Learner


class Pinwheels(TaskSource):
    """Three arms of a spiral, each a class: five labelled points, and ``queries`` of each class to answer."""

    arms, given = 3, (0, 0, 1, 1, 2)  # the arms that the five points lie on

    def __init__(self, queries: int = 10, seed: int = 0, length: int = 1000, twist: float = 2.2) -> None:
        super().__init__(seed, length)
        self.queries, self.twist = queries, twist

    @property
    def stamp(self) -> Mapping[str, str]:
        return {
            "data": "pinwheels",
            "tasks": f"3-way, 5 points, {self.queries} queries a class",
            "seed": str(self.seed),
        }

    def sample(self, items: NDArray[np.int64]) -> Episode:
        turn = 2 * math.pi * uniform(self.seed, 0, items, 1)
        classes = choose(random_keys(self.seed, 1, items, self.arms), self.arms)  # of the arms
        asked = tuple(range(self.arms)) * self.queries
        batches = []
        for stream, arms in ((2, np.array(self.given)), (4, np.array(asked))):
            along = uniform(self.seed, stream, items, len(arms))
            across = uniform(self.seed, stream + 1, items, 3 * len(arms)).reshape(len(items), 3, -1).mean(1) - 0.5
            radius = 0.25 + 1.35 * np.sqrt(along)
            angle = turn + 2 * math.pi / self.arms * (arms + 1.1 * across) + self.twist * radius
            x = torch.from_numpy(np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1))
            batches.append(Batch(x.to(torch.get_default_dtype()), one_hot(classes[:, arms], self.arms)))
        return Episode(*batches)


def meta_train(name: str, learner: Learner, steps: int) -> Learner:
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    validation = Pinwheels(seed=1, length=200)
    with show_progress(name) as watch:
        train(
            learner,
            Pinwheels(),
            steps=steps,
            tasks_per_step=32,
            optimizer=optimizer,
            scheduler=scheduler,
            validation=validation,
            every=250,
            watch=watch,
        )
    return learner


def panels(steps: int) -> list[Panel]:
    """Meta-train a learner of each family; the first column is what the five points give without."""
    metric = meta_train("metric", Prototypical(MLP(2, 64, 64, 32)), steps)
    gradient = meta_train("gradient", MAML(MLP(2, 64, 64, 3), lr=0.1, steps=5), steps)
    # Many gradient steps from random weights: training an ordinary net on the five points and nothing else.
    scratch = MAML(MLP(2, 64, 64, 3), lr=0.1, steps=200)
    return [
        Panel("no meta-learning", "a net trained on the five points", "random weights", scratch),
        Panel("metric", "Prototypical", "no prototypes yet", metric),
        Panel("gradient", "MAML, five steps", "meta-learned start", gradient),
    ]


@torch.no_grad()
def chances(learner: Learner, support: Batch, x: Tensor) -> Tensor:
    """Return the probability of each class at the points x, ``(n, ways)``, after adapting to the support set."""
    state = learner.adapt(Batch(learner.encode(support.x), support.y))
    return learner.predict(state, learner.encode(x)).softmax(-1)


def regions(learner: Learner, support: Batch, palette: Palette) -> NDArray[np.float32]:
    """Return the picture of the decision: the likeliest class's colour, the clearer the surer."""
    axis = torch.linspace(-REACH, REACH, PIXELS)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    p, best = chances(learner, support, grid.reshape(-1, 2)).max(-1)
    sure = (p - 1 / Pinwheels.arms) / (1 - 1 / Pinwheels.arms)
    colours = torch.tensor([to_rgb(colour) for colour in palette.classes])[best]
    return torch.cat([colours, 0.42 * sure[:, None]], -1).reshape(PIXELS, PIXELS, 4).numpy()


def draw_panel(axes: Axes, panel: Panel, adapted: bool, task: Episode, palette: Palette) -> None:
    support = task.support if adapted else Batch(task.support.x[:0], task.support.y[:0])
    disc = Circle((0, 0), REACH, facecolor="none", edgecolor=palette.line)
    picture = axes.imshow(
        regions(panel.learner, support, palette),
        extent=(-REACH, REACH, -REACH, REACH),
        origin="lower",
        interpolation="none",
    )
    axes.add_patch(disc)
    picture.set_clip_path(disc)
    for way, (colour, marker) in enumerate(zip(palette.classes, MARKERS, strict=True)):
        asked, shown = (batch.x[batch.y[:, way] == 1] for batch in (task.query, task.support))
        axes.scatter(*asked[:DOTS].T.tolist(), s=5, color=colour if adapted else palette.dots, linewidths=0)
        edge = {"edgecolors": palette.paper, "linewidths": 1.5, "zorder": 3}
        axes.scatter(*shown.T.tolist(), s=80, color=colour, marker=marker, **edge)
    right = (chances(panel.learner, support, task.query.x).argmax(-1) == task.query.y.argmax(-1)).float().mean()
    caption = f"{right:.0%} right" if adapted else panel.before
    axes.text(0, -1.06 * REACH, caption, ha="center", va="top", color=palette.muted, fontsize=9)
    axes.set(xlim=(-1.02 * REACH, 1.02 * REACH), ylim=(-1.02 * REACH, 1.02 * REACH))
    axes.axis("off")


def draw(columns: list[Panel], task: Episode, palette: Palette, path: Path) -> None:
    svg = {"svg.fonttype": "none", "svg.hashsalt": "kshot"}  # text stays text; the same picture is the same bytes
    with matplotlib.rc_context({**svg, "text.color": palette.ink, "font.family": "DejaVu Sans"}):
        width = 1.3 + 2.4 * len(columns)
        figure = Figure(figsize=(width, 5.6))
        room = {"left": 1.3 / width, "right": 0.995, "top": 0.89, "bottom": 0.1, "wspace": 0.06, "hspace": 0.14}
        grid = figure.add_gridspec(2, len(columns), **room)
        for column, panel in enumerate(columns):
            above, below = (figure.add_subplot(grid[row, column]) for row in range(2))
            draw_panel(above, panel, False, task, palette)
            draw_panel(below, panel, True, task, palette)
            above.text(0, 1.38 * REACH, panel.family, ha="center", va="top", fontsize=12, weight="bold")
            above.text(0, 1.19 * REACH, panel.name, ha="center", va="top", fontsize=9, color=palette.muted)
            rows = ((above, "before adapt", "no example"), (below, "after adapt", "five examples"))
            for axes, name, note in rows if column == 0 else ():
                axes.text(-1.75 * REACH, 0.06, name, ha="center", fontsize=11, weight="bold")
                axes.text(-1.75 * REACH, -0.06, note, ha="center", va="top", fontsize=9, color=palette.muted)
        legend = (
            "large: the five labelled points  ·  small: points to classify, in their true colour  ·  shade: the answer"
        )
        figure.text((1 + 1.3 / width) / 2, 0.015, legend, ha="center", color=palette.muted, fontsize=8.5)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    fonts = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
    path.write_text(path.read_text(encoding="utf-8").replace("'DejaVu Sans'", fonts), encoding="utf-8")


def typical_task(tasks: Pinwheels, results: list[Evaluation]) -> Episode:
    """Return the task on which all learners come nearest to their means, of those whose five points do not overlap."""
    apart = torch.tensor([nn.functional.pdist(task.support.x).min().item() > 0.5 for task in tasks])
    off = torch.stack([(result.scores - result.mean).abs() for result in results]).amax(0)
    return tasks[int(off.masked_fill(~apart, torch.inf).argmin())]


def main(out: Path = ROOT / "docs" / "figures", steps: int = 750, test_tasks: int = 600) -> None:
    torch.manual_seed(0)
    columns = panels(steps)
    test = Pinwheels(queries=100, seed=2, length=test_tasks)
    results = [evaluate(panel.learner, test) for panel in columns]
    for panel, result in zip(columns, results, strict=True):
        print(f"{panel.family}, {panel.name}: {result.short()} right, 95 % interval over {test_tasks} unseen tasks")
    task = typical_task(test, results)
    for name, palette in PALETTES.items():
        draw(columns, task, palette, out / f"adapt-{name}.svg")


if __name__ == "__main__":
    main()
