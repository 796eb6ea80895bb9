"""Time series of the UCR archive: a net meta-trained on seven sets, asked about the eighth, beside nearest neighbours.

For each of eight sets a small net of convolutions learns by prototypes from tasks of the seven others, each task of one set,
10-way 1-shot. So every class of the eighth is new, and so are its subject and its length. The net, its steps and rates are
the same for all and were not tuned; the last weights are judged. Nearest neighbours need no training: by Euclidean
distance, or by dynamic time warping within 10 % of the length (dtaidistance). All answer the same tasks of at most 25 series
a class, 3 queries a class. Classes with fewer than the 8 series of a 5-shot task are left out.

    python benchmarks/series.py --out runs/series
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dtaidistance import dtw
from numpy.typing import NDArray
from torch import Tensor, nn

from kshot.allocator import keep_freed_memory
from kshot.batching import unstack
from kshot.core import Batch, Learner, Tasks
from kshot.embeddings import embed
from kshot.evaluation import compare, evaluate
from kshot.learners.metric import Prototypical
from kshot.nets.conv1d import Conv1d
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import LabelledData
from kshot.tasks.source import TaskSource
from kshot.tasks.ucr import FEW_SHOT_SETS, ucr
from rows import result_row, write_rows
from train_once import train_once

MOST, QUERIES, WINDOW = 25, 3, 0.1  # series and queries of a class; share of the length that warping may move
STEPS, HALVE_EVERY = 1200, 400
WARPED = "nearest neighbour, dynamic time warping"


class OneSetATask(TaskSource):
    """Tasks of several sets in turn, whose series differ in length."""

    def __init__(self, sets: list[Episodes]) -> None:
        super().__init__(sets[0].seed, sets[0].length)
        self.sets = sets

    @property
    def stamp(self) -> Mapping[str, str]:
        return {**self.sets[0].stamp, "data": ", ".join(one.stamp["data"] for one in self.sets)}

    def sample(self, items: NDArray[np.int64]) -> Tasks:
        return [unstack(self.sets[item % len(self.sets)].sample(np.array([item])))[0] for item in items.tolist()]


class NearestNeighbour(Learner):
    """The class of the nearest support example, where examples are positions in a matrix of distances."""

    meta_trained = False
    distances: Tensor

    def __init__(self, distances: Tensor) -> None:
        super().__init__()
        self.register_buffer("distances", distances)

    def adapt(self, support: Batch) -> Batch:
        return support

    def predict(self, state: Batch, x: Tensor) -> Tensor:
        apart = self.distances[x[:, :1].long(), state.x[:, 0].long()]  # (q, n)
        return -torch.where(state.y.mT > 0, apart[:, None], math.inf).amin(2)


def net() -> nn.Module:
    """Return an untrained net: statistics of each series alone, since those of a batch are of other sets in training."""
    torch.manual_seed(0)
    return Conv1d(widths=(32, 64, 64), norm=lambda filters: nn.GroupNorm(8, filters))


def judged(name: str) -> LabelledData:
    """Return at most 25 series of each class that has enough of them."""
    data = ucr(name)
    data = data.subset([c for c, size in enumerate(data.sizes.tolist()) if size >= 5 + QUERIES])
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.nonzero(data.labels == c)[:, 0] for c in range(len(data.classes))]
    rows = torch.cat([one[torch.randperm(len(one), generator=generator)[:MOST]] for one in drawn])
    return LabelledData(data.x[rows], data.labels[rows], data.classes, stamp=data.stamp)


def warped(x: Tensor) -> Tensor:
    """Return the distances of all pairs of series under dynamic time warping."""
    series = x[:, 0].double().numpy()
    window = math.ceil(WINDOW * series.shape[1])
    return torch.from_numpy(dtw.distance_matrix_fast(series, window=window, parallel=False)).float()


def meta_trained(name: str, out: Path) -> tuple[nn.Module, float]:
    """Return a net that learned from the other sets, and its seconds."""
    learner = Prototypical(net())
    sets = [Episodes(ucr(other), 10, 1, 5, seed=1000) for other in FEW_SHOT_SETS if other != name]
    seconds = train_once(learner, OneSetATask(sets), out / name, steps=STEPS, halve_every=HALVE_EVERY, seed=0)
    return learner.encoder, seconds


def rows_of(name: str, out: Path, tasks: int) -> list[dict[str, Any]]:
    """Judge all methods on one set."""
    data = judged(name)
    trained, seconds = meta_trained(name, out)
    position, flat, mean = torch.arange(len(data.x))[:, None].float(), data.x[:, 0], Prototypical(nn.Identity())
    methods: dict[str, tuple[Learner, Tensor, float]] = {
        WARPED: (NearestNeighbour(warped(data.x)), position, 0),
        "nearest neighbour, Euclidean": (NearestNeighbour(torch.cdist(flat, flat)), position, 0),
        "nearest mean, random net": (mean, embed(net(), data.x, cache=False), 0),
        "nearest mean, net meta-trained on the other sets": (mean, embed(trained, data.x, cache=False), seconds),
    }
    rows = []
    for ways, shots, length in ((5, 1, tasks), (5, 5, tasks), (None, 1, tasks // 3), (None, 5, tasks // 3)):
        results = {}
        for learner, (method, x, _) in methods.items():
            episodes = Episodes(replace(data, x=x), ways or len(data.classes), shots, QUERIES, seed=2, length=length)
            results[learner] = evaluate(method, episodes, chunk_size=4)
        for learner, result in results.items():
            above = compare(result, results[WARPED])
            print(f"{name}, {ways or 'all'}-way {shots}-shot, {learner}: {result.short()}", flush=True)
            told = {"ways": ways or "all", "classes": len(data.classes), "shots": shots, "published": None, "seed": 0}
            told |= {"difference": above.difference, "difference_ci95": above.ci95}
            rows.append(result_row(result, learner=learner, set=name, seconds=round(methods[learner][2]), **told))
    return rows


def main() -> None:
    """Train where that is not done, judge, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", type=int, default=600, help="5-way tasks of a set; a third as many of all ways")
    options = parser.parse_args()
    keep_freed_memory()
    write_rows("series", [row for name in FEW_SHOT_SETS for row in rows_of(name, options.out, options.tasks)])


if __name__ == "__main__":
    main()
