"""See when many tasks help each other, and when one model for each task is better.

A task is a linear function of 20 inputs, known from 2 to 32 points. Where tasks share structure, all slopes lie in one
plane, which no task alone can find. Multi-task learning fits a trunk of width two and a head for each of 100 tasks to the
points that one model for each task gets too; meta-learning learns from 100 other tasks, with 20 queries each, and adapts.
All answer new points of the same tasks. Where slopes point anywhere, a trunk of width two is wrong: both lose.

    python examples/multi_task.py
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import nn

from kshot.core import Learner
from kshot.evaluation import Evaluation, evaluate
from kshot.learners.gradient import Ridge
from kshot.learners.transfer import LinearProbe, MultiTask
from kshot.losses import mean_squared_error as mse
from kshot.nets.multi_task import TaskHeads
from kshot.report.figures import Palette, save_figure
from kshot.tasks.numbered import NumberedTasks
from kshot.tasks.repeated import Repeated
from kshot.tasks.source import TaskSource
from kshot.training import train
from lines import FIGURES, lines
from maml_nothing_shared import INPUTS, PLANE, Slopes

TASKS, COUNTS, DECAYS = 100, (2, 4, 8, 16, 32), (1e-4, 1e-3, 1e-2, 1e-1)


def trained(learner: Learner, tasks: TaskSource, steps: int, decay: float = 0.0) -> Learner:
    optimizer = torch.optim.Adam(learner.parameters(), 0.02, weight_decay=decay)
    train(learner, tasks, steps=steps, tasks_per_step=TASKS, optimizer=optimizer)
    return learner


def heads() -> Learner:
    return MultiTask(TaskHeads(nn.Linear(INPUTS, PLANE), PLANE, 1, TASKS), mse)


def results(shared: float, points: int, steps: int) -> dict[str, Evaluation]:
    known, others = (Repeated(Slopes(shared, seed=seed, points=points), TASKS) for seed in (0, 1))
    numbered, of_others = (NumberedTasks(tasks.source, TASKS) for tasks in (known, others))
    # Penalty and weight decay are chosen on other tasks of the kind.
    probes = [LinearProbe(nn.Identity(), mse, penalty=10.0**p) for p in range(-3, 3)]
    alone = min(probes, key=lambda probe: evaluate(probe, others, TASKS).mean)
    decay = min(DECAYS, key=lambda decay: evaluate(trained(heads(), of_others, steps, decay), of_others, TASKS).mean)
    learned = {
        "one model for each": (alone, known),
        "multi-task": (trained(heads(), numbered, steps, decay), numbered),
        "meta-learning": (trained(Ridge(nn.Linear(INPUTS, PLANE), mse), others, steps), known),
        "one model for all": (trained(MultiTask(nn.Linear(INPUTS, 1), mse), known, steps), known),
    }
    return {name: evaluate(learner, tasks, TASKS) for name, (learner, tasks) in learned.items()}


def panel(title: str, of: Mapping[str, Sequence[Evaluation]], axes: Axes, palette: Palette) -> None:
    lines(
        axes, range(len(COUNTS)), of, [(palette.ink, 11), (palette.other, -11), (palette.main, 0), (palette.muted, 11)]
    )
    axes.set(title=title, xlabel="points of each task", ylabel="mean squared error", ylim=(0, 1.6))
    axes.set_xticks(range(len(COUNTS)), map(str, COUNTS))


def main(out: Path = FIGURES, steps: int = 500) -> None:
    draws = []
    for shared, name in ((1.0, "Slopes in one plane"), (0.0, "Slopes that share nothing")):
        torch.manual_seed(0)
        measured = [results(shared, points, steps) for points in COUNTS]
        print(f"{name}, MSE with {', '.join(map(str, COUNTS))} points of each task")
        of = {learner: [result[learner] for result in measured] for learner in measured[0]}
        print(*(f"  {learner}: {', '.join(r.short() for r in found)}" for learner, found in of.items()), sep="\n")
        draws.append(partial(panel, name, of))
    save_figure(out, "multi-task", (12.0, 3.6), draws)


if __name__ == "__main__":
    main()
