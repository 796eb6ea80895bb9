"""A memory network on five kinds of questions about generated stories, 1,000 training questions a kind.

Sukhbaatar, Szlam, Weston, Fergus 2015, "End-to-end memory networks", with its network (3 hops, 50 features, 50 sentences,
adjacent tying, position encoding, time noise of 0.1, batches of 32): one network for each kind, and one for all kinds
together, as published. Gradient descent is as published too: 0.01 for the sum over a batch, which is 0.32 for the mean,
halved three times, and a gradient norm of at most 40, which is 1.25. A network for one kind is also trained by Adam, with a
linear start, which gradient descent did not profit from. The run and the epoch that 1,000 validation stories a kind choose
are judged once on 1,000 test stories a kind; the paper keeps the run of the lowest training error. Published errors are on
bAbI's own stories: other stories, so not comparable.

    python benchmarks/stories.py --seed 0
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR

from kshot.allocator import keep_freed_memory
from kshot.clipping import clip_norm
from kshot.core import Batch, Episode
from kshot.evaluation import Evaluation, evaluate
from kshot.learners.memory import MemoryNetwork
from kshot.tasks.repeated import Repeated
from kshot.tasks.source import TaskSource
from kshot.tasks.stories import VOCABULARY, Kind, Stories
from rows import result_row, write_rows
from train_once import train_to_best

KINDS: tuple[Kind, ...] = get_args(Kind)
QUESTIONS, BATCH = 1000, 32
# Accuracies in percent on bAbI's tasks 1, 2, 3, 6 and 15, one network for all twenty tasks: other stories.
PUBLISHED = dict(zip(KINDS, (100.0, 88.6, 78.1, 97.2, 100.0), strict=True))


class AllKinds(TaskSource):
    """Stories of each kind in turn, with as many rows as the longest has."""

    def __init__(self, seed: int, length: int) -> None:
        super().__init__(seed, length)
        # Kinds of one seed ask about the same walks.
        self.sources = [Stories(kind, seed=seed + 10_000 * i) for i, kind in enumerate(KINDS)]
        self.sentences = max(source.sentences for source in self.sources)

    @property
    def stamp(self) -> Mapping[str, str]:
        return {**self.sources[0].stamp, "tasks": "; ".join(source.stamp["tasks"] for source in self.sources)}

    def sample(self, items: NDArray[np.int64]) -> Episode:
        turn = items % len(KINDS)
        parts = [source.sample(items[turn == i] // len(KINDS)) for i, source in enumerate(self.sources)]
        back = torch.from_numpy(turn.argsort(kind="stable").argsort(kind="stable"))
        rows = [F.pad(part.support.x, (0, 0, 0, self.sentences - part.support.x.shape[1])) for part in parts]
        query = Batch(*(torch.cat(leaves)[back] for leaves in zip(*(part.query for part in parts), strict=True)))
        return Episode(Batch(torch.cat(rows)[back], torch.zeros(len(items), self.sentences, 0)), query)


class Recipe(NamedTuple):
    """How a network is trained: what is told of it, its linear start, the optimizer, and how its rate falls."""

    name: str
    linear_start: float
    optimizer: Callable[[Any], torch.optim.Optimizer]
    falls: Callable[[torch.optim.Optimizer, int], LRScheduler]


DESCENT = Recipe("SGD", 0.0, lambda w: torch.optim.SGD(w, 0.32), lambda o, steps: StepLR(o, -(-steps // 4), 0.5))
ADAM = Recipe("Adam, linear start", 0.3, lambda w: torch.optim.Adam(w, 0.01), CosineAnnealingLR)


class Run(NamedTuple):
    """A trained network, its accuracy on validation stories, and how it came about."""

    learner: MemoryNetwork
    validation: float
    seconds: float
    steps: int
    told: str


def trained(recipe: Recipe, kind: Kind | None, seed: int, epochs: int, folder: Path) -> Run:
    """Train one network, for all kinds where none is given, or read what an earlier call trained."""
    count = QUESTIONS * (1 if kind else len(KINDS))
    source = (lambda seed: Stories(kind, seed=seed, length=count)) if kind else (lambda seed: AllKinds(seed, count))
    steps, every = epochs * count // BATCH, 5 * count // BATCH
    out = folder / f"{kind or 'all'}-{recipe.name}-{seed}".replace(", ", "-").replace(" ", "-")
    torch.manual_seed(seed)
    learner = MemoryNetwork(len(VOCABULARY), linear_start=recipe.linear_start)
    optimizer = recipe.optimizer(learner.parameters())
    clip_norm(optimizer, 40 / BATCH)
    position = train_to_best(
        learner,
        Repeated(source(1000 + seed), count),
        out,
        steps=steps,
        tasks_per_step=BATCH,
        optimizer=optimizer,
        scheduler=recipe.falls(optimizer, steps),
        validation=source(1),
        every=every,
        seed=seed,
    )
    told = f"{recipe.name}, run {seed}"
    return Run(learner, float(position["best"]), float(position["seconds"]), steps, told)


def row(kind: Kind, runs: list[Run], networks: str, seed: int) -> dict[str, Any]:
    """Judge the run that validation stories choose on the test stories of one kind."""
    best = max(runs, key=lambda run: run.validation)
    result: Evaluation = evaluate(best.learner, Stories(kind, seed=4, length=QUESTIONS), 100)
    print(f"{kind}, {networks}: {result}")
    return result_row(
        result,
        learner="MemoryNetwork",
        variant=networks,
        kind=kind,
        ways=None,
        shots=None,
        published=PUBLISHED[kind],
        validation=best.validation,
        chosen=f"{best.told}, of {len(runs)} runs",
        seed=seed,
        steps=best.steps,
        seconds=round(sum(run.seconds for run in runs)),
    )


def main() -> None:
    """Train some networks for each kind and for all, judge those that validation chooses, and write rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=100, help="of a network for one kind")
    parser.add_argument("--epochs-of-all", type=int, default=60, help="of a network for all kinds")
    parser.add_argument("--runs", type=int, default=1, help="of the network for all kinds")
    parser.add_argument("--out", type=Path, default=Path("runs/stories"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # the nets are too small for more
    keep_freed_memory()
    seeds = range(options.seed, options.seed + options.runs)
    together = [trained(DESCENT, None, seed, options.epochs_of_all, options.out) for seed in seeds]
    rows = [row(kind, together, "one network for all kinds", options.seed) for kind in KINDS]
    for kind in KINDS:
        alone = [trained(recipe, kind, options.seed, options.epochs, options.out) for recipe in (DESCENT, ADAM)]
        rows.append(row(kind, alone, "a network for each kind", options.seed))
    write_rows("stories", rows)


if __name__ == "__main__":
    main()
