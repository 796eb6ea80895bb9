"""Watch a function come out of the fog: an attentive neural process beside the exact Gaussian process, point by point.

The tasks are functions that a Gaussian process draws, so that the best of all predictions is known: its own posterior. The
neural process knows no kernel. It is meta-trained here on other functions, in a few minutes, and then reads 1, 3, 5 and 10
points of one that it never saw.

    python examples/neural_process_points.py
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from kshot.core import Batch, Episode
from kshot.evaluation import evaluate
from kshot.learners.memory import NeuralProcess
from kshot.progress import show_progress
from kshot.report.figures import Draw, Palette, save_figure
from kshot.tasks.functions import GaussianProcesses
from kshot.tasks.variable_shots import VariableShots
from kshot.training import train
from lines import FIGURES


def meta_train(steps: int) -> NeuralProcess:
    learner = NeuralProcess(1, heads=8)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    # Every step has another number of support points, none to 20, so that any number may be given later.
    tasks = VariableShots(GaussianProcesses(shots=20, queries=40, seed=1), (0, 20))
    with show_progress("reading functions") as watch:
        train(learner, tasks, steps=steps, optimizer=optimizer, scheduler=scheduler, watch=watch)
    return learner


def panel(title: str, truth: Batch, support: Batch, prediction: Tensor, colour: str) -> Draw:
    """Draw the function, the points, and a mean with two deviations to each side, in a colour of the palette."""
    mean, deviation = prediction[:, 0].tolist(), prediction[:, 1].exp().tolist()
    low, high = ([m + sign * 2 * s for m, s in zip(mean, deviation, strict=True)] for sign in (-1, 1))

    def draw(axes: Axes, palette: Palette) -> None:
        shade, x = getattr(palette, colour), truth.x[:, 0].tolist()
        axes.fill_between(x, low, high, color=shade, alpha=0.2, linewidth=0)
        axes.plot(x, truth.y[:, 0].tolist(), color=palette.truth, linewidth=4, alpha=0.75)
        axes.plot(x, mean, color=shade)
        axes.plot(support.x[:, 0].tolist(), support.y[:, 0].tolist(), "^", color=palette.ink, markersize=6, zorder=3)
        axes.set(title=title, ylim=(-3.2, 3.2), xlim=(-2, 2))

    return draw


@torch.no_grad()
def main(out: Path = FIGURES, steps: int = 6000, test_tasks: int = 1000, counts: Sequence[int] = (1, 3, 5, 10)) -> None:
    torch.manual_seed(0)
    with torch.enable_grad():
        learner = meta_train(steps).eval()
    source, item = GaussianProcesses(shots=10, queries=120, seed=2, length=test_tasks), np.arange(1)
    (x, y), query = source.sample(item)
    order = query.x[0, :, 0].argsort()
    above, below = [], []
    for count in counts:
        result = evaluate(learner, VariableShots(source, (count, count)), 100)
        task = Episode(Batch(x[:, :count], y[:, :count]), Batch(query.x[:, order], query.y[:, order]))
        read, best = learner.predictions(task)[0], source.exact(task, item)[0]
        print(f"{count} points: log-likelihood {result.short()} over {test_tasks} functions")
        support, truth = (Batch(*(leaf[0] for leaf in batch)) for batch in task)
        points = f"{count} point{'s' * (count > 1)}"
        above.append(panel(f"Attentive neural process, {points}", truth, support, read, "main"))
        below.append(panel(f"Exact Gaussian process, {points}", truth, support, best, "muted"))
    save_figure(out, "neural-process-points", (14.0, 5.6), [*above, *below], columns=len(counts))


if __name__ == "__main__":
    main()
