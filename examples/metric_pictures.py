"""Draw what learners that compare see of one task, before and after meta-training.

A column for each learner, on glyphs of alphabets that it never saw in training: the embedding of a prototypical network
in the plane that shows most of it, and how alike siamese, relation and matching networks hold each query to each support
example or class. Everything is computed: the learners are meta-trained here, in about a minute.

    python examples/metric_pictures.py
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from kshot.core import Batch, Episode, Learner
from kshot.evaluation import evaluate
from kshot.learners.metric import Matching, Prototypical, Relation, Siamese, WeightedL1
from kshot.nets.conv import Conv4
from kshot.nets.relation import relation_encoder, relation_score
from kshot.progress import show_progress
from kshot.tasks.episodes import Episodes
from kshot.tasks.glyphs import glyphs
from kshot.training import train
from picture import PALETTES, Palette

ROOT = Path(__file__).parents[1]
WAYS, SHOTS, QUERIES = 5, 2, 6
COLOURS = ("#4477aa", "#ee7733", "#228833", "#cc3377", "#aa8f00")  # apart for most eyes, on paper and on black


class Column(NamedTuple):
    """A learner, and how alike it holds queries ``(q)`` and what it remembers, ``(q, columns)``; None draws a scatter."""

    name: str
    learner: Learner
    likeness: Callable[[Batch, Tensor], Tensor] | None
    across: str
    most: float = 1.0  # likeness drawn darkest


def columns() -> list[Column]:
    prototypical, siamese = Prototypical(Conv4(channels=1)), Siamese(Conv4(channels=1), WeightedL1(64))
    relation = Relation(relation_encoder(), relation_score())
    matching = Matching(Conv4(channels=1), temperature="learned")

    def attention(support: Batch, x: Tensor) -> Tensor:
        return (-matching.distance(x, support.x) / matching.log_temperature.exp()).softmax(-1)

    return [
        Column("Prototypical", prototypical, None, "embedding, two main directions"),
        Column("Siamese", siamese, lambda s, x: (-siamese.distance(x, s.x)).sigmoid(), "p(same) of support examples"),
        Column(
            "Relation", relation, lambda s, x: relation.predict(relation.adapt(s), x).sigmoid(), "scores of classes"
        ),
        Column("Matching", matching, attention, "attention to support examples", 0.5),
    ]


def sorted_by_class(batch: Batch) -> Batch:
    order = batch.y.argmax(-1).argsort(stable=True)
    return Batch(batch.x[order], batch.y[order])


@torch.no_grad()
def draw(axes: Axes, column: Column, task: Episode, palette: Palette) -> None:
    """Draw the scatter of a prototypical network, or the matrix of another."""
    learner = column.learner.eval()
    support, query = (Batch(learner.encode(x), y) for x, y in map(sorted_by_class, task))
    axes.set(xticks=[], yticks=[], xlabel=column.across)
    if column.likeness is not None:
        alike = column.likeness(support, query.x)
        axes.pcolormesh(alike.numpy(), cmap="Blues", vmin=0, vmax=column.most)
        axes.invert_yaxis()
        axes.set_ylabel("queries, class by class")
        for edge in range(1, WAYS):
            axes.axhline(edge * QUERIES, color=palette.muted, linewidth=0.5)
            axes.axvline(edge * alike.shape[1] / WAYS, color=palette.muted, linewidth=0.5)
        return
    prototypes = learner.adapt(support).means
    centre = torch.cat([support.x, query.x]).mean(0)
    plane = torch.linalg.svd(torch.cat([support.x, query.x]) - centre, full_matrices=False).Vh[:2].T
    for way, colour in enumerate(COLOURS):
        for x, style in (
            (query.x[query.y[:, way] == 1], {"s": 12, "alpha": 0.7, "linewidths": 0}),
            (
                support.x[support.y[:, way] == 1],
                {"s": 40, "marker": "^", "edgecolors": palette.paper, "linewidths": 0.5},
            ),
            (prototypes[way : way + 1], {"s": 90, "marker": "*", "edgecolors": palette.ink, "linewidths": 0.7}),
        ):
            axes.scatter(*((x - centre) @ plane).T.tolist(), color=colour, **style)


def meta_train(column: Column, steps: int) -> None:
    optimizer = torch.optim.Adam(column.learner.parameters(), 1e-3)
    tasks = Episodes(glyphs("train"), 10, 1, 5)
    with show_progress(column.name) as watch:
        train(column.learner, tasks, steps=steps, tasks_per_step=1, optimizer=optimizer, watch=watch)


def main(out: Path = ROOT / "docs" / "figures", steps: int = 400, test_tasks: int = 200) -> None:
    torch.manual_seed(0)
    test = Episodes(glyphs("test"), WAYS, SHOTS, QUERIES, seed=2, length=test_tasks)
    drawn = columns()
    figures = {name: Figure(figsize=(11, 5.6), layout="constrained") for name in PALETTES}
    for row, stage in enumerate(("before meta-training", "after")):
        for place, column in enumerate(drawn):
            if row == 1:
                meta_train(column, steps)
            right = evaluate(column.learner, test)
            print(f"{column.name}, {stage}: {right.short()} right, 95 % interval over {test_tasks} unseen tasks")
            for name, palette in PALETTES.items():
                with matplotlib.rc_context(settings(palette)):
                    axes = figures[name].add_subplot(2, len(drawn), 1 + row * len(drawn) + place)
                    draw(axes, column, test[0], palette)
                    axes.set_title(f"{column.name}, {stage}\n{right.short()} right", loc="left")
    for name, figure in figures.items():
        with matplotlib.rc_context(settings(PALETTES[name])):
            unsigned = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(out / f"metric-{name}.svg", transparent=True, metadata=unsigned)


def settings(palette: Palette) -> dict[str, object]:
    svg = {"svg.fonttype": "none", "svg.hashsalt": "kshot", "font.family": "DejaVu Sans", "font.size": 8}
    colours = dict.fromkeys(("text.color", "axes.titlecolor", "axes.labelcolor"), palette.ink)
    return {**svg, **colours, "axes.edgecolor": palette.line, "axes.facecolor": "none"}


if __name__ == "__main__":
    main()
