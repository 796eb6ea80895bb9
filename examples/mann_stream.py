"""Watch a MANN learn new classes from a stream: where it writes each example, and where it looks when the class comes again.

The examples are points about random centres, four classes that it never saw, five times each. After Santoro et al. 2016,
"Meta-learning with memory-augmented neural networks"; it takes a few minutes.

    python examples/mann_stream.py
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from kshot.core import Batch
from kshot.learners.memory import MANNCell, Recurrent
from kshot.presentations import evaluate_presentations
from kshot.progress import show_progress
from kshot.report.figures import save_figure
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import LabelledData
from kshot.training import train
from lines import FIGURES
from ntm_copy import picture

WAYS, FEATURES = 4, 16


def points(seed: int, classes: int = 500, each: int = 10) -> LabelledData:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 1, FEATURES, generator=generator)
    x = centres + 0.3 * torch.randn(classes, each, FEATURES, generator=generator)
    return LabelledData.from_arrays(x.flatten(0, 1), torch.arange(classes).repeat_interleave(each))


def trained(steps: int) -> Recurrent:
    torch.manual_seed(0)
    learner = Recurrent(MANNCell(FEATURES + WAYS, 64, slots=32, width=20, heads=1), nn.Identity(), WAYS)
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)

    def clip(*_: object) -> None:
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)

    optimizer.register_step_pre_hook(clip)
    with show_progress("streams") as watch:
        train(learner, Episodes(points(1), WAYS, 5, 1), steps=steps, optimizer=optimizer, watch=watch)
    return learner


@torch.no_grad()
def watched(learner: Recurrent, stream: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return what it takes each example for, where it wrote and where it read at every step: (step, of each)."""
    state, steps = learner.init(), []
    for x, y in zip(*stream, strict=True):
        said = learner.predict(state, x[None])[0].softmax(-1)
        state = learner.update(state, Batch(x[None], y[None]))
        steps.append((said, state.cell.writing[0], state.cell.reading[0]))
    answers, writes, reads = (torch.stack(of_all) for of_all in zip(*steps, strict=True))
    return answers, writes, reads


def main(out: Path = FIGURES, steps: int = 3000, test_tasks: int = 200) -> None:
    learner, tasks = trained(steps), Episodes(points(2), WAYS, 5, 1, seed=1, length=test_tasks)
    for n, result in evaluate_presentations(learner, tasks, (1, 2, 3, 5)).items():
        print(f"presentation {n}: {result.short()}")
    stream = tasks[0].support
    answers, writes, reads = watched(learner, stream)
    shown = {"classes shown": stream.y, "classes answered before": answers}
    draws = [picture(*pair) for pair in {**shown, "slots written to": writes, "slots read from": reads}.items()]
    save_figure(out, "mann-stream", (8.4, 5.6), draws, columns=2)


if __name__ == "__main__":
    main()
