"""Watch a neural Turing machine copy: where it writes while it is shown bits, and where it reads while it repeats them.

It is trained on sequences of up to 20 vectors, and here copies one of 20 and is judged on longer ones. After figure 6 of
Graves, Wayne, Danihelka 2014, "Neural Turing machines"; it takes a few minutes.

    python examples/ntm_copy.py
"""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from torch import Tensor

from kshot.clipping import clip_norm
from kshot.core import Episode
from kshot.evaluation import evaluate
from kshot.learners.memory import NTMCell, Transducer
from kshot.losses import bit_errors
from kshot.progress import show_progress
from kshot.report.figures import Draw, Palette, save_figure
from kshot.tasks.copying import Copy
from kshot.training import train
from lines import FIGURES


def trained(steps: int, slots: int) -> Transducer:
    torch.manual_seed(0)
    learner = Transducer(NTMCell(9, slots=slots), 8, bit_errors)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    clip_norm(optimizer, 1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with show_progress("copy") as watch:
        train(learner, Copy(), steps=steps, optimizer=optimizer, scheduler=scheduler, watch=watch)
    return learner


@torch.no_grad()
def watched(learner: Transducer, task: Episode) -> tuple[Tensor, Tensor, Tensor]:
    """Return the chance of a one that it answers, where it wrote and where it read at every step: (step, of each)."""
    state, steps = learner.init(), []
    for x in torch.cat([task.support.x, task.query.x]):
        output, state = learner.cell(x, state)
        steps.append((learner.readout(output).sigmoid(), state.addresses[1], state.addresses[0]))
    answers, writes, reads = (torch.stack(of_all) for of_all in zip(*steps, strict=True))
    answers[: len(task.support.x)] = 0  # nobody asks yet
    return answers, writes, reads


def picture(title: str, values: Tensor) -> Draw:
    # Values from 0 to 1, (step, row), say how clear a colour is.
    def draw(axes: Axes, palette: Palette) -> None:
        colour = torch.tensor(to_rgb(palette.main)).expand(*values.T.shape, 3)
        image = torch.cat([colour, values.T[..., None].clamp(0, 1)], -1)
        axes.imshow(image.numpy(), aspect="auto", interpolation="none")
        axes.set(title=title, xlabel="step", yticks=[])  # and so no grid

    return draw


def main(out: Path = FIGURES, steps: int = 2000, slots: int = 128, test_tasks: int = 160) -> None:
    learner = trained(steps, slots)
    for n in (20, 50, 100):
        print(f"length {n}: bit error {evaluate(learner, Copy((n, n), seed=2, length=test_tasks)).short()}")
    task = Copy((20, 20), seed=2)[0]
    shown, (answers, writes, reads) = torch.cat([task.support.x, task.query.x]), watched(learner, task)
    used = writes.amax(0).topk(min(slots, 24)).indices.sort().values  # of the memory, the part that matters
    heads = {"slots written to": writes[:, used], "slots read from": reads[:, used]}
    draws = [picture(*pair) for pair in {"bits shown": shown, "bits answered": answers, **heads}.items()]
    save_figure(out, "ntm-copy", (8.4, 5.6), draws, columns=2)


if __name__ == "__main__":
    main()
