"""Draw where a memory network looks: the attention of each hop over the sentences of a story.

The question is where a thing is, which takes two facts: who has it, and where they went with it, or where it was left. The
network is trained here, in about a minute, on stories that it meets once each; nobody tells it which sentences matter.

    python examples/memory_network_hops.py
"""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from torch import Tensor

from kshot.clipping import clip_norm
from kshot.core import Batch, Episode
from kshot.evaluation import evaluate
from kshot.learners.memory import MemoryNetwork
from kshot.progress import show_progress
from kshot.report.figures import Palette, save_figure
from kshot.tasks.stories import VOCABULARY, Stories, words
from kshot.training import train
from lines import FIGURES

SENTENCES = 12


def trained(steps: int) -> MemoryNetwork:
    """Train by gradient descent with clipped gradients, as in the paper."""
    torch.manual_seed(0)
    learner = MemoryNetwork(len(VOCABULARY))
    optimizer = torch.optim.SGD(learner.parameters(), 0.32)
    clip_norm(optimizer, 1.25)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    tasks = Stories("two_facts", SENTENCES)
    with show_progress("memory network") as watch:
        train(learner, tasks, steps=steps, tasks_per_step=32, optimizer=optimizer, scheduler=schedule, watch=watch)
    return learner.eval()


@torch.no_grad()
def looked(learner: MemoryNetwork, task: Episode) -> tuple[Tensor, Tensor]:
    """Return the attention ``(hops, sentences)`` on the question of a story, and the probability of each word."""
    state = learner.adapt(Batch(learner.encode(task.support.x), task.support.y))
    question = learner.encode(task.query.x)
    return learner.attention(state, question)[0], learner.predict(state, question)[0].softmax(-1)


def draw(axes: Axes, palette: Palette, task: Episode, attention: Tensor, probability: Tensor) -> None:
    columns, rows, colour = range(len(attention)), range(len(attention.mT)), to_rgb(palette.main)
    # Not the whole colour, so that numbers stay legible on it.
    axes.imshow([[(*colour, 0.6 * share) for share in row] for row in attention.mT.tolist()], aspect="auto")
    axes.tick_params(labelcolor=palette.ink, length=0)
    for hop, row in (attention > 0.05).nonzero().tolist():
        axes.text(hop, row, f"{attention[hop, row]:.2f}", ha="center", va="center", color=palette.ink)
    axes.set_yticks(rows, [words(sentence) for sentence in task.support.x])
    axes.set_xticks(columns, [f"hop {hop + 1}" for hop in columns])
    axes.grid(visible=False)
    answer = int(probability.argmax())
    axes.set_title(f"{words(task.query.x[0])}?  {VOCABULARY[answer]} ({probability[answer]:.0%})")


def main(out: Path = FIGURES, steps: int = 4000, test_tasks: int = 1000) -> None:
    learner = trained(steps)
    tasks = Stories("two_facts", SENTENCES, seed=2, length=test_tasks)
    result = evaluate(learner, tasks, 100)
    print(f"answers: {result.short()} right, 95 % interval over {test_tasks} unseen stories")
    # The first story of full length, so that there is no choice of a fine one.
    task = next(task for task in Stories("two_facts", SENTENCES, seed=3) if task.support.x[-1].any())
    seen = task, *looked(learner, task)
    save_figure(out, "memory-network-hops", (6.6, 4.2), [lambda axes, palette: draw(axes, palette, *seen)])


if __name__ == "__main__":
    main()
