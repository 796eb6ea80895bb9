"""Speed and memory of learners that read sequences: 16 sequences in one batch against one sequence after the other.

Santoro's MANN on 50 pictures, and Graves' NTM that copies 20 rows of 8 bits or predicts 200 bits. The batch runs as it is,
and with a compiled step; the loop runs the same cell on each sequence alone and adds up the gradients. Timed in turns.

    python benchmarks/sequence_speed.py
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from kshot.allocator import keep_freed_memory
from kshot.batching import unstack
from kshot.core import Batch, Episode, Learner, one_hot
from kshot.learners.memory import MANNCell, NTMCell, Recurrent, Transducer
from kshot.losses import bits
from kshot.memory import peak_bytes
from kshot.meta_gradient import MetaGradient
from rows import write_rows
from turns import in_turns

SEQUENCES = 16


def mann() -> tuple[Learner, Episode]:
    """Return the learner of Santoro et al. 2016 and streams of its size."""
    labels = one_hot([[i % 5 for i in range(50)]] * SEQUENCES, 5)
    support = Batch(torch.rand(SEQUENCES, 50, 1, 20, 20), labels)
    return Recurrent(MANNCell(400 + 5), nn.Flatten(), 5), Episode(support, Batch(support.x[:, :5], labels[:, :5]))


def ntm() -> tuple[Learner, Episode]:
    """Return the learner of Graves et al. 2014 and sequences to copy."""
    shown = torch.rand(SEQUENCES, 21, 9).round()
    targets = shown[:, :20, :8]
    asked = Batch(torch.zeros(SEQUENCES, 20, 9), targets)
    return Transducer(NTMCell(9), 8, bits), Episode(Batch(shown, shown[..., :0]), asked)


def predictor() -> tuple[Learner, Episode]:
    """Return the learner of Graves et al. 2014 and 200 bits to predict, each told the one before."""
    shown = torch.rand(SEQUENCES, 200, 1).round()
    known = shown[:, :5]
    return Transducer(NTMCell(1), 1, bits), Episode(Batch(known, known[..., :0]), Batch(shown[:, 4:-1], shown[:, 5:]))


def gradient(learner: Learner, tasks: Episode, compiled: bool = False) -> Callable[[], None]:
    gradient = MetaGradient(learner, compiled=compiled)

    def step() -> None:
        learner.zero_grad()
        gradient(tasks)

    return step


def loop(learner: Learner, tasks: Episode) -> Callable[[], None]:
    def step() -> None:
        learner.zero_grad()
        for task in unstack(tasks):
            (learner.task_loss(learner._encode_listed([task])[0]) / SEQUENCES).backward()  # type: ignore[no-untyped-call]

    return step


def main() -> None:
    """Time both learners and write their rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keep_freed_memory()
    rows = []
    for name, build in (("MANN, 50 pictures", mann), ("NTM, copy of 20", ntm), ("NTM, 200 bits", predictor)):
        torch.manual_seed(options.seed)
        learner, tasks = build()
        compiled = gradient(learner, tasks, compiled=True)
        start = time.perf_counter()
        compiled()
        first = time.perf_counter() - start
        steps = {"batch": gradient(learner, tasks), "compiled": compiled, "loop": loop(learner, tasks)}
        medians, seconds = in_turns(steps, options.rounds, warm_up=2)
        peak = peak_bytes(steps["batch"])
        print(f"{name}: {medians}, {peak / 2**20:.0f} MiB, first compiled step {first:.0f} s")
        rows.append(
            {
                "learner": name,
                "data": "random",
                "protocol": f"{SEQUENCES} sequences, forwards and backwards, {torch.get_num_threads()} threads",
                "metric": "milliseconds",
                "value": medians["batch"],
                "loop": medians["loop"],
                "compiled": medians["compiled"],
                "bytes": peak,
                "compile_seconds": first,
                "seed": options.seed,
                "seconds": seconds,
            }
        )
    write_rows("sequence_speed", rows)


if __name__ == "__main__":
    main()
