"""Distances compared: class means in the embedding of one net, Omniglot, the split of Vinyals et al.

Conv4-64 learns from the same starting weights and tasks with each distance, its scale learned too; three seeds.
Then every distance is judged on its own embedding, and on the one that was trained with the squared Euclidean distance.
Steps and rates were not tuned for any of them. Tasks are judged in pairs, on the means of the three seeds.

    python benchmarks/distances.py --out runs/distances
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kshot.allocator import keep_freed_memory
from kshot.core import Learner
from kshot.evaluation import Evaluation, compare, evaluate
from kshot.learners.metric import Mahalanobis, Prototypical, distances
from kshot.nets.conv import Conv4
from kshot.tasks.episodes import Episodes
from kshot.tasks.omniglot import omniglot
from rows import result_row, write_rows
from train_once import train_once

FEATURES, WAYS, SEEDS = 64, 20, (0, 1, 2)
REFERENCE, OWN = "squared Euclidean", "its own"


class Scaled(nn.Module):
    """A distance times a number that is learned, so that a softmax can be as sharp as it needs to be."""

    def __init__(self, distance: distances.Distance, start: float = 1.0) -> None:
        super().__init__()
        self.distance, self.log_scale = distance, nn.Parameter(torch.tensor(start).log())

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.log_scale.exp() * self.distance(x, y)


def prototypical(distance: distances.Distance, start: float = 1.0) -> Callable[[nn.Module], Learner]:
    return lambda encoder: Prototypical(encoder, distance=Scaled(distance, start))


LEARNERS: Mapping[str, Callable[[nn.Module], Learner]] = {  # the reference first
    REFERENCE: prototypical(distances.squared_euclidean),
    "Euclidean": prototypical(distances.euclidean),
    "Manhattan": prototypical(distances.manhattan),
    "cosine": prototypical(distances.cosine, 10.0),  # of at most 2, so one would be too soft a start
    "learned diagonal": lambda encoder: prototypical(distances.WeightedSquaredEuclidean(FEATURES))(encoder),
    "Mahalanobis": Mahalanobis,
}


def trained(name: str, seed: int, options: argparse.Namespace) -> Learner:
    """Return the learner of this distance and seed, trained now or read from its folder."""
    torch.manual_seed(seed)
    learner = LEARNERS[name](Conv4(1, FEATURES))
    out = options.out / f"{name.replace(' ', '-').lower()}-{seed}"
    data = omniglot("vinyals", "antialiased").train.with_mirrored_classes()
    tasks = Episodes(data, 60, 1, 5, 1000 + seed)
    seconds = train_once(learner, tasks, out, steps=options.steps, halve_every=options.halve_every, seed=seed)
    print(f"{name}, seed {seed}: {seconds:.0f} s", flush=True)
    return learner


def judged(learners: list[Learner], shots: int, tasks: int) -> tuple[Evaluation, list[float]]:
    """Return the mean over seeds of each task's accuracy, and the accuracy of each seed."""
    source = Episodes(omniglot("vinyals", "antialiased").test, WAYS, shots, 10, 2, tasks)
    results = [evaluate(learner, source) for learner in learners]
    mean = torch.stack([result.scores for result in results]).mean(0)
    return replace(results[0], scores=mean), [result.mean for result in results]


def main() -> None:
    """Train with each distance and three seeds, judge, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--halve-every", type=int, default=300)
    parser.add_argument("--tasks", type=int, default=1000)
    options = parser.parse_args()
    keep_freed_memory()
    own = {name: [trained(name, seed, options) for seed in SEEDS] for name in LEARNERS}
    rows = []
    for shots in (1, 5):
        results: dict[tuple[str, str], Evaluation] = {}
        for name, learners in own.items():
            swapped = [LEARNERS[name](learner.encoder) for learner in own[REFERENCE]]
            for embedding, judges in ((OWN, learners), (REFERENCE, swapped)):
                if embedding == REFERENCE and name in (REFERENCE, "learned diagonal"):
                    continue  # the same as the reference, before it has learned weights
                result, by_seed = judged(judges, shots, options.tasks)
                results[name, embedding] = result
                paired = compare(result, results[REFERENCE, OWN])
                print(f"{name}, {shots} shots, embedding {embedding}: {result.short()}; {paired}", flush=True)
                rows.append(
                    result_row(
                        result,
                        learner=name,
                        embedding=embedding,
                        ways=WAYS,
                        shots=shots,
                        by_seed=by_seed,
                        difference=paired.difference,
                        difference_ci95=paired.ci95,
                        steps=options.steps,
                    )
                )
    write_rows("distances", rows)


if __name__ == "__main__":
    main()
