"""A neural Turing machine beside an LSTM on the tasks of its paper, trained on short sequences and judged on longer ones.

Graves, Wayne, Danihelka 2014, "Neural Turing machines", section 4, with its sizes: 8 bits and lengths 1 to 20 for copy, 2 to
6 items of three times 6 bits for associative recall, 16 of 20 vectors for priority sort, 200 bits for 6-grams, a memory of
128 slots of 20 numbers, three layers of LSTM for the rival. Not as there, for want of hours: meta-batches of 16 sequences,
16,000 to 130,000 sequences instead of a million, and therefore Adam with a far larger step, 1e-2 or 3e-3 for the NTM and
1e-3 for the LSTM, falling to zero by a cosine, where the paper takes RMSProp with 1e-4 to 3e-5; the gradient's norm is
clipped to 1 instead of each number to +-10. Learners are trained by the mean cross-entropy of a bit. Validation tasks like
those of training choose the weights, by bits per sequence; each set of test tasks is used once. A folder keeps every run,
and the same command goes on with it.

    python benchmarks/sequences.py copy NTM --seed 0
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kshot.allocator import keep_freed_memory
from kshot.clipping import clip_norm
from kshot.evaluation import evaluate
from kshot.learners.memory import NTMCell, Transducer
from kshot.losses import Loss, bit_errors, bits
from kshot.nets.cells import LSTM, Cell
from kshot.tasks.associative_recall import AssociativeRecall
from kshot.tasks.copying import Copy, RepeatCopy
from kshot.tasks.n_grams import NGrams
from kshot.tasks.priority_sort import PrioritySort
from kshot.tasks.sequences import Sequences
from rows import result_row, write_rows
from train_once import train_to_best

Source = Callable[[int, int], Sequences]  # (seed, length) -> tasks


@dataclass(frozen=True)
class Setting:
    """What is trained on, and what is judged.

    Args:
        source: training and validation tasks.
        tests: test tasks by the name of their row.
        inputs: features of an input.
        targets: features of a target.
        steps: of training, 16 sequences each.
        published: bits per sequence by learner, as read off the paper's figures.
    """

    source: Source
    tests: Mapping[str, Source]
    inputs: int
    targets: int
    steps: int
    published: Mapping[str, str]


SETTINGS = {
    "copy": Setting(
        lambda seed, length: Copy(seed=seed, length=length),
        {
            f"length {n}": lambda seed, length, n=n: Copy((n, n), seed=seed, length=length)
            for n in (10, 20, 50, 100, 120)
        },
        9,
        8,
        2000,
        {
            "NTM": "about 0 after 0.2 million sequences",
            "NTM, feedforward": "about 0 after 0.1 million sequences",
            "LSTM": "about 2 after a million sequences",
        },
    ),
    "repeat copy": Setting(
        lambda seed, length: RepeatCopy(seed=seed, length=length),
        {
            f"length {n}, {r} repeats": lambda seed, length, n=n, r=r: RepeatCopy(
                (n, n), (r, r), seed=seed, length=length
            )
            for n, r in ((10, 10), (20, 10), (10, 20))
        },
        9,
        9,
        4000,
        {"NTM": "about 0 after 0.1 million sequences", "LSTM": "about 0 after 0.3 million sequences"},
    ),
    "associative recall": Setting(
        lambda seed, length: AssociativeRecall(seed=seed, length=length),
        {
            f"{n} items": lambda seed, length, n=n: AssociativeRecall((n, n), seed=seed, length=length)
            for n in (4, 6, 12, 15)
        },
        8,
        6,
        6000,
        {
            "NTM": "about 0 after 0.1 million sequences",
            "NTM, feedforward": "about 0 after 0.03 million sequences",
            "LSTM": "never about 0",
        },
    ),
    "n-grams": Setting(
        lambda seed, length: NGrams(seed=seed, length=length),
        {"200 bits": lambda seed, length: NGrams(seed=seed, length=length)},
        1,
        1,
        1000,
        {"NTM": "133 to 134, the first 5 bits included", "LSTM": "about 137, the first 5 bits included"},
    ),
    "priority sort": Setting(
        lambda seed, length: PrioritySort(seed=seed, length=length),
        {"16 of 20": lambda seed, length: PrioritySort(seed=seed, length=length)},
        10,
        8,
        4000,
        {"NTM": "10 to 20", "LSTM": "about 50"},
    ),
}
RATES = {"NTM": 1e-2, "NTM, feedforward": 1e-2, "LSTM": 1e-3}
LOWER = {("n-grams", "NTM"): 3e-3, ("associative recall", "NTM, feedforward"): 3e-3}  # than that of the learner
# The paper's heads and hidden features, by task, where they are not 1 and 100; a stacked controller is one layer here.
HEADS = {
    "NTM": {"priority sort": (5, 200)},
    "NTM, feedforward": {"associative recall": (4, 256), "priority sort": (8, 512)},
}
LAYERS = {"repeat copy": 512, "n-grams": 128, "priority sort": 128}  # of the LSTM, where they are not of 256


def cell_of(task: str, name: str) -> Cell:
    inputs = SETTINGS[task].inputs
    if name == "LSTM":
        return LSTM(inputs, LAYERS.get(task, 256), 3)
    heads, hidden = HEADS[name].get(task, (1, 100))
    controller = "lstm" if name == "NTM" else "feedforward"
    start = "learned" if task == "n-grams" else "constant"
    return NTMCell(inputs, hidden, reads=heads, writes=heads, controller=controller, start=start)


def learner_of(task: str, name: str, loss: Loss = bits) -> Transducer:
    return Transducer(cell_of(task, name), SETTINGS[task].targets, loss)


def trained(
    task: str, name: str, seed: int, steps: int, lr: float, out: Path, compiled: bool
) -> tuple[Transducer, dict[str, Any]]:
    """Train into a folder, or go on with what it holds; return the learner and what its rows say of training."""
    setting = SETTINGS[task]
    torch.manual_seed(seed)
    learner = learner_of(task, name)
    optimizer = torch.optim.Adam(learner.parameters(), lr)
    clip_norm(optimizer, 1.0)
    position = train_to_best(
        learner,
        setting.source(1000 + seed, 1000),
        out,
        steps=steps,
        tasks_per_step=16,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        validation=setting.source(1, 320),
        every=250,
        seed=seed,
        compiled=compiled,
    )
    told = {
        "lr": lr,
        "steps": position["step"],
        "sequences": 16 * position["step"],
        "seconds": round(position["seconds"]),
        "validation": position["best"],
        "parameters": sum(parameter.numel() for parameter in learner.parameters()),
    }
    return learner, told


def judged(
    task: str, name: str, seed: int, learner: Transducer, told: dict[str, Any], count: int
) -> list[dict[str, Any]]:
    """Judge a learner by bits per sequence and by bit errors on every set of test tasks."""
    rows = []
    other = learner_of(task, name, bit_errors)
    other.load_state_dict(learner.state_dict())
    first = next(iter(SETTINGS[task].tests))
    for variant, source in SETTINGS[task].tests.items():
        tasks = source(2, count)
        more: dict[str, Any] = {
            "learner": name,
            "task": task,
            "variant": variant,
            "ways": None,
            "shots": None,
            "seed": seed,
        }
        if isinstance(tasks, NGrams):
            more["bayes"] = torch.stack([tasks.optimal_bits(one) for one in tasks]).mean().item()
        for one in (learner, other):
            # The paper's curves are of tasks like those of training, which come first.
            published = SETTINGS[task].published.get(name) if one is learner and variant == first else None
            result = evaluate(one, tasks)
            print(f"{task}, {name}, {variant}: {result}")
            rows.append(result_row(result, **more, published=published, **told))
    return rows


def main() -> None:
    """Train one learner on one task, judge it, and write rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=SETTINGS)
    parser.add_argument("learner", choices=RATES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="instead of those of the task")
    parser.add_argument("--lr", type=float, help="instead of that of the task or the learner")
    parser.add_argument("--tests", type=int, default=320, help="test tasks of each set")
    parser.add_argument("--compile", action="store_true", help="compile a step of the cell")
    parser.add_argument("--out", type=Path, default=Path("runs/sequences"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # the cells are too small for more
    keep_freed_memory()
    out = options.out / f"{options.task}-{options.learner}-{options.seed}".replace(" ", "-")
    steps = options.steps or SETTINGS[options.task].steps
    lr = options.lr or LOWER.get((options.task, options.learner), RATES[options.learner])
    learner, told = trained(options.task, options.learner, options.seed, steps, lr, out, options.compile)
    write_rows("sequences", judged(options.task, options.learner, options.seed, learner, told, options.tests))


if __name__ == "__main__":
    main()
