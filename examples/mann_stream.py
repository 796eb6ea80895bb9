"""Watch a memory-augmented neural network read a stream: where it writes what it sees, and where it looks for it later.

Each example comes with the label of the one before. The streams are of points around five centres, which are new in every
task. After Santoro, Bartunov, Botvinick, Wierstra, Lillicrap 2016, "Meta-learning with memory-augmented neural networks"; it
takes a few minutes.

    python examples/mann_stream.py
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from kshot.clipping import clip_norm
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

WAYS, SHOWN, FEATURES = 5, 6, 8


def points(classes: int, seed: int) -> LabelledData:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 1, FEATURES, generator=generator)
    x = centres + 0.3 * torch.randn(classes, 2 * SHOWN, FEATURES, generator=generator)
    return LabelledData.from_arrays(x.flatten(0, 1), torch.arange(classes).repeat_interleave(2 * SHOWN))


def trained(steps: int, slots: int) -> Recurrent:
    torch.manual_seed(0)
    cell = MANNCell(FEATURES + WAYS, hidden=64, slots=slots, width=16, heads=1)
    learner = Recurrent(cell, nn.Identity(), WAYS)
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    clip_norm(optimizer, 1.0)
    tasks = Episodes(points(2000, 0), WAYS, SHOWN, queries=1)
    with show_progress("streams") as watch:
        train(learner, tasks, steps=steps, tasks_per_step=16, optimizer=optimizer, watch=watch)
    return learner


@torch.no_grad()
def watched(learner: Recurrent, stream: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the chances of each class, where it wrote and where it read at every step: (step, of each)."""
    state, steps, label = learner.cell.init(), [], torch.zeros(WAYS)
    for x, y in zip(*stream, strict=True):
        output, state = learner.cell(torch.cat([x, label]), state)
        steps.append((learner.readout(output).softmax(-1), state.writing.sum(0), state.reading.mean(0)))
        label = y
    answers, writes, reads = (torch.stack(of_all) for of_all in zip(*steps, strict=True))
    return answers, writes, reads


def main(out: Path = FIGURES, steps: int = 3000, slots: int = 40, test_tasks: int = 400) -> None:
    learner = trained(steps, slots).eval()
    tasks = Episodes(points(400, 1), WAYS, SHOWN, queries=1, seed=2, length=test_tasks)
    for n, result in evaluate_presentations(learner, tasks, (1, 2, 5)).items():
        print(f"presentation {n}: {result.short()} right, 95 % interval over {test_tasks} unseen streams")
    stream = tasks[0].support
    answers, writes, reads = watched(learner, stream)
    used = writes.amax(0).topk(min(slots, len(stream.y))).indices
    used = used[writes[:, used].argmax(0).argsort()]  # in the order in which they were written
    told = {"class, told one step later": stream.y, "class answered": answers}
    heads = {"slots written to": writes[:, used], "slots read from": reads[:, used]}
    draws = [picture(*pair) for pair in {**told, **heads}.items()]
    save_figure(out, "mann-stream", (8.4, 5.6), draws, columns=2)


if __name__ == "__main__":
    main()
