"""Semi-supervised few-shot learning on Omniglot with a tenth of the labels (Ren et al. 2018), the split of Vinyals et al.

Of each class two drawings are labelled and eighteen are not, in training and in test. A 5-way 1-shot task has five
unlabelled drawings of each class, and as many of each of five distractor classes, or of none. Steps and rates are the same
for all and were not tuned; the last weights are judged, in pairs, on the same tasks.

    python benchmarks/semi.py --out runs/semi
"""

import argparse
import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kshot.allocator import keep_freed_memory
from kshot.core import Batch, Episode
from kshot.evaluation import Evaluation, compare, evaluate
from kshot.learners.metric import Prototypical, SoftKMeans
from kshot.nets.conv import Conv4
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import LabelledData
from kshot.tasks.omniglot import omniglot
from kshot.tasks.source import TaskSource
from rows import result_row, write_rows
from train_once import train_once

DRAWINGS, LABELLED, UNLABELLED = 20, 2, 5


def part(data: LabelledData, drawings: slice) -> LabelledData:
    """Return these of the drawings of each class; which drawer comes first differs from class to class."""
    each = data.x.unflatten(0, (-1, DRAWINGS))
    first = np.random.default_rng(0).integers(DRAWINGS, size=len(each))
    chosen = torch.from_numpy((first[:, None] + np.arange(DRAWINGS)[drawings]) % DRAWINGS)
    x = each.gather(1, chosen[:, :, None, None, None].expand(-1, -1, *each.shape[2:]))
    labels = torch.arange(len(each)).repeat_interleave(chosen.shape[1])
    return replace(data, x=x.flatten(0, 1), labels=labels)


class TenthLabelled(TaskSource):
    """Support and queries from the labelled drawings, unlabelled examples from the others."""

    def __init__(self, data: LabelledData, ways: int, distractors: int, seed: int, length: int = 1000) -> None:
        super().__init__(seed, length)
        # Both draw the same classes, since what a task draws depends on its seed and number alone.
        known, unknown = part(data, slice(0, LABELLED)), part(data, slice(LABELLED, DRAWINGS))
        self.labelled = Episodes(known, ways, 1, 1, seed, length, distractors=distractors)
        self.unlabelled = Episodes(unknown, ways, 0, 0, seed, length, unlabelled=UNLABELLED, distractors=distractors)

    @property
    def stamp(self) -> Mapping[str, str]:
        extras = f"{UNLABELLED} unlabelled a class, {self.unlabelled.distractors} distractors"
        return {**self.labelled.stamp, "labels": "10 %", "unlabelled": extras}

    def sample(self, items: NDArray[np.int64]) -> Episode:
        (support, query), extra = self.labelled.sample(items), self.unlabelled.sample(items).support
        return Episode(Batch(torch.cat([support.x, extra.x], 1), torch.cat([support.y, extra.y], 1)), query)


def trained(name: str, learner: Prototypical | SoftKMeans, distractors: int, options: argparse.Namespace) -> float:
    """Train on tasks with so many distractor classes, once, and return the seconds."""
    data = omniglot("vinyals", "antialiased").train
    tasks = TenthLabelled(data, options.train_ways, distractors, 1000 + options.seed)
    how = {"steps": options.steps, "halve_every": options.halve_every, "seed": options.seed}
    return train_once(learner, tasks, options.out / name, **how)


def main() -> None:
    """Train the supervised learner and three that use unlabelled examples, judge them in pairs, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--halve-every", type=int, default=500)
    parser.add_argument("--train-ways", type=int, default=40)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(options.seed)
    start = Conv4(1)
    supervised = Prototypical(copy.deepcopy(start))
    seconds = {"supervised": trained("supervised", supervised, 0, options)}
    learners = {"supervised": supervised, "supervised, k-means at test": SoftKMeans(supervised.encoder)}
    seconds["supervised, k-means at test"] = seconds["supervised"]
    for name, clusters, distractors in (
        ("soft k-means", False, 0),
        ("soft k-means with a distractor cluster", True, 5),
    ):
        learners[name] = SoftKMeans(copy.deepcopy(start), distractors=clusters)
        seconds[name] = trained(name.replace(" ", "-"), learners[name], distractors, options)
    rows = []
    for distractors in (0, 5):
        tasks = TenthLabelled(omniglot("vinyals", "antialiased").test, 5, distractors, 2, options.tasks)
        results: dict[str, Evaluation] = {}
        for name, learner in learners.items():  # the supervised one first
            result = results[name] = evaluate(learner, tasks)
            paired = compare(result, results["supervised"])
            print(f"{name}, {distractors} distractors: {result.short()}; gain {paired}", flush=True)
            rows.append(
                result_row(
                    result,
                    learner=name,
                    ways=5,
                    shots=1,
                    distractors=distractors,
                    difference=paired.difference,
                    difference_ci95=paired.ci95,
                    seconds=round(seconds[name]),
                    steps=options.steps,
                    seed=options.seed,
                )
            )
    write_rows("semi", rows)


if __name__ == "__main__":
    main()
