"""The one-shot task of Lake et al. 2015: 20 official runs of 20 characters of one alphabet, 400 answers.

Prototypical networks with a residual net, trained on the background alphabets alone, on tasks within one alphabet. Net and
checkpoint are chosen on such tasks from the five background alphabets that ``omniglot("lake")`` holds out; then the runs are
scored, once. Embeddings are means over fixed small distortions of a picture, the same for support and query.

    python benchmarks/lake.py --minutes 44 --out runs/lake
    python benchmarks/lake.py --out runs/lake --judge
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
from kshot.evaluation import evaluate
from kshot.learners.metric import Prototypical
from kshot.nets.resnet import ResNet12
from kshot.progress import show_progress
from kshot.tasks.augment import Distortions
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import Splits
from kshot.tasks.omniglot import omniglot
from kshot.tasks.omniglot_runs import lake_runs
from kshot.tasks.source import TaskSource
from kshot.training import train
from rows import result_row, write_rows

WAYS, ERROR_OF_PEOPLE = 20, 4.5


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


class Averaged(nn.Module):
    """The mean embedding of a picture and of distorted copies of it, the same distortions for every picture."""

    def __init__(self, encoder: nn.Module, copies: int) -> None:
        super().__init__()
        self.encoder, self.distort = encoder, Distortions()
        self.register_buffer("u", torch.rand(copies, self.distort.numbers, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        embeddings = [self.encoder(x)]
        for u in self.u:
            embeddings.append(self.encoder(self.distort(x[None], u.expand(1, len(x), -1))[0]))
        return torch.stack(embeddings).mean(0)


def resized(x: Tensor, side: int) -> Tensor:
    small = F.interpolate(x.flatten(0, 1), size=(side, side), mode="bilinear", antialias=True)
    return small.unflatten(0, x.shape[:2])


def learner_of(widths: list[int]) -> Prototypical:
    block1, block2, block3, block4 = widths
    return Prototypical(ResNet12(1, (block1, block2, block3, block4)))


def within_alphabets(splits: Splits, options: argparse.Namespace) -> Episodes:
    data = splits.train.with_mirrored_classes().with_rotations("classes")
    queries = options.train_queries
    return Episodes(data, options.train_ways, 1, queries, options.seed, within_groups=True, augment=Distortions())


def validation(splits: Splits, length: int) -> Episodes:
    return Episodes(splits.val, WAYS, 1, 1, seed=1, length=length, within_groups=True)


def main() -> None:
    """Train, or judge a trained run and write its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/lake"))
    parser.add_argument("--minutes", type=float, default=44)
    parser.add_argument("--side", type=int, default=48, help="of the pictures")
    parser.add_argument("--widths", type=int, nargs=4, default=[32, 64, 128, 256])
    parser.add_argument("--train-ways", type=int, default=40)
    parser.add_argument("--train-queries", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2000, help="over which the learning rate falls to nothing")
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--copies", type=int, default=8, help="distorted copies of which embeddings are means")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--judge", action="store_true", help="score the 20 runs, once")
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(options.seed)
    splits, learner = omniglot("lake", "antialiased", options.side), learner_of(options.widths)
    if not options.judge:
        optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
        with show_progress("lake") as watch:
            train(
                learner,
                within_alphabets(splits, options),
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
        return
    load_learner(options.out / "best.safetensors", learner)
    chosen = Prototypical(Averaged(learner.encoder, options.copies))
    for name, one in (("one embedding", learner), ("mean embedding", chosen)):
        print(f"{name}, held-out background alphabets: {evaluate(one, validation(splits, 1000)).short()}")
    result = evaluate(chosen, Runs(options.side))
    print(f"error {100 * (1 - result.mean):.2f} % ± {100 * result.ci95:.2f} (people {ERROR_OF_PEOPLE} %): {result}")
    position = load_checkpoint(options.out / "last.safetensors")["position"]
    more = {
        "learner": "Prototypical",
        "ways": WAYS,
        "shots": 1,
        "published": 100 - ERROR_OF_PEOPLE,
        "seed": options.seed,
    }
    write_rows("lake", [result_row(result, **more, seconds=round(position["seconds"]), steps=position["step"])])


if __name__ == "__main__":
    main()
