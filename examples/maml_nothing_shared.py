"""See what meta-learning gains where tasks share structure, and that it loses where they share none.

A task is a linear function of 20 inputs, and ten points of it. Its slope is a random vector: a part lies in one plane, the
same for all tasks, the rest points anywhere. Where all of it lies in the plane, a learner can know 18 of 20 dimensions
beforehand; where none does, no task tells anything of the next. The rival takes gradient steps from zero; and MAML that was
meta-trained where all is shared meets the other tasks too. Validation tasks choose the steps. It takes a few minutes.

    python examples/maml_nothing_shared.py
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import nn

from kshot.core import Batch, Episode
from kshot.evaluation import compare, evaluate
from kshot.learners.gradient import MAML
from kshot.losses import mean_squared_error
from kshot.progress import show_progress
from kshot.report.figures import Palette, save_figure
from kshot.tasks.keys import uniform
from kshot.tasks.source import TaskSource
from kshot.training import train
from lines import FIGURES, line

INPUTS, PLANE = 20, 2
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
CHOICE = 300  # validation tasks that choose
SETTINGS = [(lr, steps) for lr in (0.03, 0.05, 0.1, 0.2) for steps in (1, 5, 20, 50, 200)]  # of the inner loop


class Slopes(TaskSource):
    """Linear tasks; ``shared`` of the variance of a slope lies in the plane of the first two inputs."""

    def __init__(self, shared: float, queries: int = 20, seed: int = 0, length: int = 1000, points: int = 10) -> None:
        super().__init__(seed, length)
        self.shared, self.queries, self.points = shared, queries, points

    @property
    def stamp(self) -> Mapping[str, str]:
        return {"data": f"slopes, {self.shared:.0%} shared", "seed": str(self.seed)}

    def normal(self, stream: int, items: NDArray[np.int64], *shape: int) -> NDArray[np.float64]:
        u, v = uniform(self.seed, stream, items, 2 * int(np.prod(shape))).reshape(len(items), 2, *shape).swapaxes(0, 1)
        drawn: NDArray[np.float64] = np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)  # Box and Muller
        return drawn

    def sample(self, items: NDArray[np.int64]) -> Episode:
        in_plane, anywhere = self.normal(0, items, PLANE, 1), self.normal(1, items, INPUTS, 1)
        slope = np.sqrt((1 - self.shared) / INPUTS) * anywhere
        slope[:, :PLANE] += np.sqrt(self.shared / PLANE) * in_plane
        inputs = (
            self.normal(stream, items, points, INPUTS) for stream, points in ((2, self.points), (3, self.queries))
        )
        return Episode(*(Batch(torch.from_numpy(x).float(), torch.from_numpy(x @ slope).float()) for x in inputs))


def maml(net: nn.Module, lr: float, steps: int) -> MAML:
    return MAML(net, lr, steps, "reverse", loss=mean_squared_error)


def tuned(net: nn.Module, shared: float) -> MAML:
    """Choose step size and number of steps on validation tasks."""
    tasks = Slopes(shared, seed=1, length=CHOICE)
    return min((maml(net, *setting) for setting in SETTINGS), key=lambda learner: evaluate(learner, tasks, 100).mean)


def meta_trained(shared: float, steps: int) -> nn.Module:
    torch.manual_seed(0)
    # Two linear layers: the function stays linear, and the first may learn which directions matter.
    net = nn.Sequential(nn.Linear(INPUTS, INPUTS, bias=False), nn.Linear(INPUTS, 1, bias=False))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    validation = Slopes(shared, seed=1, length=CHOICE)
    with show_progress(f"{shared:.0%} shared") as watch:
        train(
            maml(net, 0.05, 5),
            Slopes(shared),
            steps=steps,
            tasks_per_step=25,
            optimizer=optimizer,
            validation=validation,
            watch=watch,
        )
    return net


def main(out: Path = FIGURES, steps: int = 2000, test_tasks: int = 1000) -> None:
    zero = nn.Linear(INPUTS, 1, bias=False)
    nn.init.zeros_(zero.weight)
    test = {shared: Slopes(shared, seed=2, length=test_tasks) for shared in SHARES}
    learners = {shared: tuned(meta_trained(shared, steps), shared) for shared in SHARES}
    results = {
        "gradient steps from zero": [evaluate(tuned(zero, shared), tasks, 100) for shared, tasks in test.items()],
        "MAML": [evaluate(learners[shared], tasks, 100) for shared, tasks in test.items()],
        "MAML for all shared": [evaluate(learners[1.0], tasks, 100) for tasks in test.values()],
    }
    plain, *learned = results.items()
    for i, shared in enumerate(SHARES):
        print(f"{shared:.0%} shared: {plain[0]}, MSE {plain[1][i].short()}, 95 % interval over {test_tasks} tasks")
        for name, of_name in learned:
            print(f"  {name}: {of_name[i].short()}; difference: {compare(of_name[i], plain[1][i])}")

    def draw(axes: Axes, palette: Palette) -> None:
        at = [100 * shared for shared in SHARES]
        line(axes, at, results["gradient steps from zero"], palette.muted, "gradient steps from zero")
        line(axes, at, results["MAML"], palette.main, "MAML", lift=7)
        line(
            axes,
            at,
            results["MAML for all shared"],
            palette.other,
            "MAML, meta-trained\nwhere all is shared",
            at=1,
            lift=14,
        )
        axes.set_title(f"Mean squared error on {test_tasks:,} unseen tasks; predicting zero has 1")
        axes.set(xlabel="what tasks share of their slopes' variance, %", xticks=at, ylim=(0, None))

    save_figure(out, "maml-nothing-shared", (7.2, 3.6), [draw])


if __name__ == "__main__":
    main()
