"""The one-shot task of Lake et al. 2015: 20 official runs of 20 characters of one alphabet, 400 answers.

A siamese net, which compares places of two pictures with places near them, trained on the background alphabets alone, on
tasks within one alphabet, by one of two protocols:

- ``lake``: by the n-pair loss; net and checkpoint are chosen on such tasks from five background alphabets held out.
- ``koch``: on as many alphabets and drawers as Koch's, by the n-pair loss and that of verification together. It is also
  judged by verification: are two drawings of one character? Half of 10,000 pairs are, and all are of one alphabet and of
  drawers unseen.

The official runs are scored once. Distances may be means over the eight ways to turn and mirror both pictures.

    python benchmarks/lake.py lake --out runs/lake
    python benchmarks/lake.py lake --out runs/lake --compare
    python benchmarks/lake.py lake --out runs/lake --judge --views
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from kshot.allocator import keep_freed_memory
from kshot.checkpoint import load_checkpoint, load_learner
from kshot.core import Batch, Episode
from kshot.evaluation import Evaluation, evaluate
from kshot.learners.metric import Correspondence, Siamese
from kshot.learners.metric.siamese import n_pair, verification
from kshot.nets.resnet import ResidualBlock
from kshot.progress import show_progress
from kshot.tasks.augment import Distortions
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import LabelledData, Splits
from kshot.tasks.omniglot import omniglot
from kshot.tasks.omniglot_runs import lake_runs
from kshot.tasks.source import TaskSource
from kshot.training import train
from rows import result_row, write_rows

WAYS, QUERIES = 20, 2  # of a training task
PUBLISHED = {"lake": (95.5, "people"), "koch": (92.0, "Koch et al. 2015")}
VERIFICATION = 93.42  # Koch et al. 2015


class Runs(TaskSource):
    """The official runs, at another size."""

    def __init__(self, side: int) -> None:
        self.episode = Episode(*(Batch(resized(batch.x, side), batch.y) for batch in lake_runs()))
        super().__init__(seed=0, length=len(self.episode.query.y))

    @property
    def stamp(self) -> Mapping[str, str]:
        side = self.episode.query.x.shape[-1]
        return {"data": "omniglot", "split": "the 20 official runs", "resize": f"{side}x{side} antialiased"}

    def sample(self, items: NDArray[np.int64]) -> Episode:
        return Episode(*(Batch(batch.x[items], batch.y[items]) for batch in self.episode))


class HalfPrecision(nn.Module):
    """Train a net in bfloat16, and use it in float32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.training):
            features: Tensor = self.net(x)
        return features.to(x.dtype)


class Views(nn.Module):
    """The features of a picture, turned and mirrored in each of the eight ways: ``(m, 8, *features)``."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        pictures = (side.rot90(quarter, (2, 3)) for side in (x, x.flip(3)) for quarter in range(4))
        return torch.stack([self.encoder(picture) for picture in pictures], 1)


class MeanOverViews(nn.Module):
    """The mean of the distances of each view of a picture and the same view of another."""

    def __init__(self, distance: nn.Module) -> None:
        super().__init__()
        self.distance = distance

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([self.distance(x[:, view], y[:, view]) for view in range(x.shape[1])]).mean(0)


def view_from_all_sides(learner: Siamese) -> None:
    learner.encoder, learner.distance = Views(learner.encoder), MeanOverViews(learner.distance)


def resized(x: Tensor, side: int) -> Tensor:
    small = F.interpolate(x.flatten(0, 1), size=(side, side), mode="bilinear", antialias=True)
    return small.unflatten(0, x.shape[:2])


def learner_of(protocol: str, widths: list[int]) -> Siamese:
    one, two, three = widths
    encoder = nn.Sequential(ResidualBlock(1, one), ResidualBlock(one, two), ResidualBlock(two, three, halve=False))
    pair_loss = n_pair if protocol == "lake" else n_pair_and_verification
    return Siamese(HalfPrecision(encoder), Correspondence(three), pair_loss)


def n_pair_and_verification(distances: Tensor, same: Tensor, different: Tensor) -> Tensor:
    return n_pair(distances, same, different) + verification(distances, same, different)


def training_tasks(splits: Splits, seed: int) -> Episodes:
    data = splits.train.with_mirrored_classes().with_rotations("per_episode")
    return Episodes(data, WAYS, 1, QUERIES, seed, within_groups=True, augment=Distortions())


def validation(splits: Splits, length: int) -> Episodes:
    return Episodes(splits.val, WAYS, 1, 1, seed=1, length=length, within_groups=True)


def pairs_of_one_alphabet(learner: Siamese, data: LabelledData, pairs: int = 10_000, seed: int = 0) -> Evaluation:
    """Return the accuracy of 'one character or not' on pairs within one alphabet, half of them of one character."""
    rng = np.random.default_rng(seed)
    groups, classes = np.asarray(data.groups), data.labels.numpy()
    alphabets = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    drawings = [np.flatnonzero(classes == one) for one in range(len(data.classes))]
    right = []
    with torch.no_grad():
        z = torch.cat([learner.encode(x.float() / 255) for x in data.x.split(256)])
        for number in range(pairs):
            same = number % 2 == 0
            one, other = rng.choice(alphabets[rng.integers(len(alphabets))], 2, replace=False)
            first, second = (
                rng.choice(drawings[one], 2, replace=False)
                if same
                else (rng.choice(drawings[one]), rng.choice(drawings[other]))
            )
            right.append((learner.distance(z[first, None], z[second, None]).item() < 0) == same)
    stamp = {**data.stamp, "tasks": "pairs within one alphabet, half of one character", "learner": "Siamese"}
    return Evaluation("accuracy", True, torch.tensor(right, dtype=torch.float64), stamp)


def judge(learner: Siamese, splits: Splits, options: argparse.Namespace) -> None:
    """Score the official runs once, and verification where the protocol has it; write the rows."""
    if options.views:
        view_from_all_sides(learner)
    learner.eval()
    position = load_checkpoint(options.out / "last.safetensors")["position"]
    views = "8 views" if options.views else "1 view"
    published, whose = PUBLISHED[options.protocol]
    about = {
        "learner": "Siamese",
        "seed": options.seed,
        "seconds": round(position["seconds"]),
        "steps": position["step"],
        "variant": f"{options.protocol}, correspondence of residual maps {options.widths}, side {options.side}, {views}",
        "validation": position["best"],
    }
    result = evaluate(learner, Runs(options.side))
    print(f"the official runs: {result}; {whose} {published} %")
    rows = [result_row(result, ways=WAYS, shots=1, published=published, whose=whose, **about)]
    if options.protocol == "koch":
        pairs = pairs_of_one_alphabet(learner, splits.test)
        print(f"verification: {pairs}; Koch et al. 2015 {VERIFICATION} %")
        rows.append(result_row(pairs, ways=2, shots=1, published=VERIFICATION, whose=whose, **about))
    write_rows("lake", rows)


def main() -> None:
    """Train, compare on validation tasks, or judge a trained run and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocol", choices=("lake", "koch"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--side", type=int, default=40, help="of the pictures")
    parser.add_argument("--widths", type=int, nargs=3, default=[24, 48, 96])
    parser.add_argument("--steps", type=int, default=16_000, help="over which the learning rate falls to nothing")
    parser.add_argument("--every", type=int, default=2000)
    parser.add_argument("--views", action="store_true", help="judge by the mean over eight views")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--compare", action="store_true", help="one view and eight, on validation tasks")
    parser.add_argument("--judge", action="store_true", help="score the official runs, once")
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(options.seed)
    splits = omniglot(options.protocol, "antialiased", options.side)
    learner = learner_of(options.protocol, options.widths)
    if options.judge or options.compare:
        load_learner(options.out / "best.safetensors", learner)
    if options.judge:
        judge(learner, splits, options)
        return
    if options.compare:
        print(f"1 view: {evaluate(learner, validation(splits, 1000)).short()}")
        view_from_all_sides(learner)
        print(f"8 views: {evaluate(learner, validation(splits, 1000)).short()}")
        return
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    with show_progress("lake") as watch:
        train(
            learner,
            training_tasks(splits, options.seed),
            steps=options.steps,
            minutes=options.minutes,
            tasks_per_step=1,
            optimizer=optimizer,
            scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps),
            validation=validation(splits, 200),
            every=options.every,
            out=options.out,
            resume=options.resume,
            seed=options.seed,
            watch=watch,
        )


if __name__ == "__main__":
    main()
