"""Encoding: a training step of prototypical networks beside a supervised step of the same encoder on the same pictures.

60-way 1-shot with 5 queries a class, 360 pictures of 28x28. The supervised step classifies the 360 pictures into 1,028
classes by a linear layer. Both have Adam, the same layout and no drawing of tasks, and are timed in turns in one process.

    python benchmarks/encoding.py
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.allocator import keep_freed_memory
from kshot.learners.metric import Prototypical
from kshot.nets.conv import Conv4
from kshot.tasks.episodes import Episodes
from kshot.tasks.glyphs import glyphs
from rows import write_rows
from turns import in_turns

WAYS, QUERIES, CLASSES, REPEATS = 60, 5, 1028, 60


def step_of(module: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Return a whole training step."""
    optimizer = torch.optim.Adam(module.parameters())

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def main() -> None:
    """Time both in turns and write the rows."""
    keep_freed_memory()
    tasks = Episodes(glyphs("train"), WAYS, 1, QUERIES).sample(np.array([0]))
    learner = Prototypical(Conv4())
    pictures = torch.cat([batch.x[0] for batch in tasks])
    labels = torch.randint(CLASSES, (len(pictures),))
    supervised = nn.Sequential(Conv4(), nn.Linear(64, CLASSES)).to(memory_format=torch.channels_last)
    steps = {
        "prototypical": step_of(learner, lambda: learner.meta_loss(tasks)),
        "supervised": step_of(supervised, lambda: F.cross_entropy(supervised(pictures), labels)),
    }
    medians, seconds = in_turns(steps, REPEATS, warm_up=5)
    speed = medians["supervised"] / medians["prototypical"]
    print({name: f"{value:.1f} ms" for name, value in medians.items()}, f"{speed:.1%} of the supervised step's speed")
    common = {
        "learner": "Prototypical",
        "data": "glyphs",
        "protocol": f"360 pictures of 28x28, Conv4-64, Adam, threads: {torch.get_num_threads()}, medians of {REPEATS}",
        "ways": WAYS,
        "shots": 1,
        "ci95": None,
        "episodes": REPEATS,
        "published": None,
        "seed": 0,
        "seconds": seconds,
    }
    rows = [{"metric": f"{name} step, ms", "value": value} for name, value in medians.items()]
    write_rows("encoding", [{**common, **row} for row in (*rows, {"metric": "ratio", "value": speed})])


if __name__ == "__main__":
    main()
