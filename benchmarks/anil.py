"""ANIL's speed: a training step of MAML beside one of ANIL, whose body runs once, outside the inner loop.

20-way 1-shot, one query a class, 5 inner steps, 16 tasks, the strided net of MAML, Adam. Inner loops are
compiled, in reverse mode, and chunks of two tasks run side by side; ANIL's body runs as it is. Both are timed in turns in
one process.

    python benchmarks/anil.py
"""

import argparse
from collections.abc import Callable

import torch
from torch import nn

from kshot.allocator import keep_freed_memory
from kshot.core import Episode, Learner
from kshot.learners.gradient import MAML
from kshot.meta_gradient import MetaGradient
from kshot.nets.conv import Conv4
from kshot.nets.norm import BatchStatisticsNorm
from rows import write_rows
from turns import in_turns
from workloads import WORKLOADS

WORKLOAD = WORKLOADS["omniglot strided, 20-way, 5 steps"]


def step_of(learner: Learner, tasks: Episode) -> Callable[[], None]:
    """Return a whole training step."""
    optimizer = torch.optim.Adam(learner.parameters())
    gradient = MetaGradient(learner, 2, compiled=True, side_by_side=True)

    def step() -> None:
        optimizer.zero_grad()
        gradient(tasks)
        optimizer.step()

    return step


def main() -> None:
    """Time both in turns and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    keep_freed_memory()
    torch.manual_seed(0)
    tasks, ways = WORKLOAD.draw(0), WORKLOAD.ways or 0
    body = Conv4(1, 64, "stride", "mean")
    whole = nn.Sequential(Conv4(1, 64, "stride", "mean", BatchStatisticsNorm), nn.Linear(64, ways))
    learners = {
        "MAML": MAML(whole, WORKLOAD.lr, WORKLOAD.steps, "reverse"),
        "ANIL": MAML(nn.Linear(64, ways), WORKLOAD.lr, WORKLOAD.steps, "reverse", encoder=body),
    }
    steps = {name: step_of(learner, tasks) for name, learner in learners.items()}
    medians, seconds = in_turns(steps, repeats, warm_up=3)  # the first rounds compile
    ratio = medians["MAML"] / medians["ANIL"]
    print({name: f"{value:.0f} ms" for name, value in medians.items()}, f"ANIL is {ratio:.2f} times as fast")
    common = {
        "data": "noise",
        "protocol": f"{WORKLOAD.protocol}, compiled, Adam, threads: {torch.get_num_threads()}, medians of {repeats}",
        "ways": ways,
        "shots": 1,
        "ci95": None,
        "episodes": repeats,
        "published": None,
        "seed": 0,
        "seconds": seconds,
    }
    rows = [{"learner": name, "metric": "step, ms", "value": value} for name, value in medians.items()]
    write_rows("anil", [{**common, **row} for row in (*rows, {"learner": "ANIL", "metric": "ratio", "value": ratio})])


if __name__ == "__main__":
    main()
