"""See when many tasks help each other, and when one model for each task is better.

A task is a linear function of 20 inputs, known from 2 to 32 points. Where tasks share structure, all slopes lie in one
plane, which no task alone can find. Multi-task learning fits a trunk of width two and a head for each of 100 tasks to the
points that one model for each task gets too; meta-learning is trained on 100 other tasks, with 20 queries each, and adapts.
All are judged on new points of the same tasks. Where slopes point anywhere, a trunk of width two is wrong: both lose.

    python examples/multi_task.py
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import nn

from kshot.core import Learner
from kshot.evaluation import Evaluation, evaluate
from kshot.learners.gradient import Ridge
from kshot.learners.transfer import LinearProbe, MultiTask
from kshot.losses import mean_squared_error
from kshot.nets.multi_task import TaskHeads
from kshot.report.figures import Draw, Palette, save_figure
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
    return MultiTask(TaskHeads(nn.Linear(INPUTS, PLANE), PLANE, 1, TASKS), mean_squared_error)


def results(shared: float, points: int, steps: int) -> dict[str, Evaluation]:
    known, others = (Repeated(Slopes(shared, seed=seed, points=points), TASKS) for seed in (0, 1))
    numbered, of_others = (NumberedTasks(tasks.source, TASKS) for tasks in (known, others))
    # Penalty and weight decay are chosen on other tasks of the kind.
    probes = [LinearProbe(nn.Identity(), mean_squared_error, penalty=10.0**p) for p in range(-3, 3)]
    alone = min(probes, key=lambda probe: evaluate(probe, others, TASKS).mean)
    decay = min(DECAYS, key=lambda decay: evaluate(trained(heads(), of_others, steps, decay), of_others, TASKS).mean)
    meta = Ridge(nn.Linear(INPUTS, PLANE), mean_squared_error)
    for_all = MultiTask(nn.Linear(INPUTS, 1), mean_squared_error)
    return {
        "one model for each": evaluate(alone, known, TASKS),
        "multi-task": evaluate(trained(heads(), numbered, steps, decay), numbered, TASKS),
        "meta-learning": evaluate(trained(meta, others, steps), known, TASKS),
        "one model for all": evaluate(trained(for_all, known, steps), known, TASKS),
    }


def panel(title: str, of: Mapping[str, Sequence[Evaluation]]) -> Draw:
    def draw(axes: Axes, palette: Palette) -> None:
        lines(axes, COUNTS, of, [(palette.ink, 11), (palette.other, -11), (palette.main, 0), (palette.muted, 11)])
        axes.set(title=title, xlabel="points of each task", xscale="log", ylim=(0, 1.6))
        axes.set_xticks(COUNTS, map(str, COUNTS), minor=False)
        axes.set_xticks([], minor=True)

    return draw


def main(out: Path = FIGURES, steps: int = 500) -> None:
    draws = []
    for shared, name in ((1.0, "Slopes in one plane"), (0.0, "Slopes that share nothing")):
        torch.manual_seed(0)
        start = time.monotonic()
        measured = [results(shared, points, steps) for points in COUNTS]
        print(f"{name}, MSE with {', '.join(map(str, COUNTS))} points of each task, {time.monotonic() - start:.0f} s")
        of = {learner: [result[learner] for result in measured] for learner in measured[0]}
        for learner, found in of.items():
            print(f"  {learner}: {', '.join(result.short() for result in found)}")
        draws.append(panel(name, of))
    save_figure(out, "multi-task", (12.0, 3.6), draws)


if __name__ == "__main__":
    main()
