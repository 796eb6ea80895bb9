"""Sampling: meta-batches from memory in one gather, against a Dataset that opens one picture at a time with Pillow.

A meta-batch is 32 tasks of 5-way 1-shot with 15 queries, 2,560 pictures of 28x28. The rates are timed in turns in one
process, ten meta-batches of ours in a row against one of the rival's, and medians are compared. Drawn between training
steps, which take the caches, a meta-batch costs more: that time, and the share of a prototypical training step that its own
sampling takes, stand beside it.

    python benchmarks/sampling.py
"""

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kshot.allocator import keep_freed_memory
from kshot.learners.metric import Prototypical
from kshot.nets.conv import Conv4
from kshot.tasks.episodes import Episodes
from kshot.tasks.omniglot import omniglot
from rows import write_rows

TASKS, WAYS, EACH = 32, 5, 16


class Pictures(Dataset[tuple[Tensor, int]]):
    """The usual picture Dataset: open, resize, to tensor."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.rglob("*.png"))
        names = sorted({file.parent.name for file in self.files})
        self.labels = [names.index(file.parent.name) for file in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        with Image.open(self.files[item]) as picture:
            small = picture.convert("L").resize((28, 28))
        return torch.from_numpy(np.asarray(small, np.float32) / 255)[None], self.labels[item]


class TaskSampler:
    """The usual batch sampler: choose classes, then examples of each, in Python."""

    def __init__(self, labels: list[int], batches: int) -> None:
        self.batches = batches
        self.items: dict[int, list[int]] = {}
        for item, label in enumerate(labels):
            self.items.setdefault(label, []).append(item)

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.batches):
            tasks = [random.sample(sorted(self.items), WAYS) for _ in range(TASKS)]
            yield [item for task in tasks for label in task for item in random.sample(self.items[label], EACH)]

    def __len__(self) -> int:
        return self.batches


def write_pictures(folder: Path, characters: int = 400) -> None:
    """Write drawings as the 1-bit PNG files of 105x105 that Omniglot comes in."""
    whole = omniglot("vinyals", size=105).train
    for x, label in zip(whole.x, whole.labels.tolist(), strict=True):
        if label < characters:
            place = folder / f"{label:04d}"
            place.mkdir(exist_ok=True)
            Image.fromarray(255 - x[0].numpy()).convert("1").save(place / f"{len(list(place.iterdir())):02d}.png")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Time both in turns and write the row."""
    keep_freed_memory()
    episodes = Episodes(omniglot("vinyals").train, WAYS, 1, EACH - 1)
    step_tasks = Episodes(omniglot("vinyals").train, 60, 1, 5)
    learner = Prototypical(Conv4())
    optimizer = torch.optim.Adam(learner.parameters())

    def step(number: int) -> None:
        optimizer.zero_grad()
        learner.meta_loss(step_tasks.sample(np.array([number]))).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    times: dict[str, list[float]] = {"between steps": [], "ours": [], "pillow": [], "step": [], "step's sampling": []}
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder))
        pictures = Pictures(Path(folder))
        for number in range(-3, 30):
            rival = DataLoader(pictures, batch_sampler=TaskSampler(pictures.labels, 1))
            items = np.arange(TASKS) + TASKS * (number + 3)
            measured = {
                "between steps": seconds(lambda items=items: episodes.sample(items)),
                "ours": seconds(lambda items=items: [episodes.sample(items + 999 * i) for i in range(10)]) / 10,
                "pillow": seconds(lambda rival=rival: list(rival)),
                "step's sampling": seconds(lambda number=number: step_tasks.sample(np.array([number + 3]))),
                "step": seconds(lambda number=number: step(number + 3)),
            }
            if number >= 0:  # the first rounds warm up
                for name, value in measured.items():
                    times[name].append(value)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio, share = medians["pillow"] / medians["ours"], medians["step's sampling"] / medians["step"]
    print({name: f"{1000 * value:.2f} ms" for name, value in medians.items()}, f"{ratio:.0f}x, {share:.1%} of a step")
    common = {
        "data": "omniglot",
        "protocol": "32 tasks, 5-way 1-shot, 15 queries, 28x28, medians of 30 in turns",
        "seed": 0,
    }
    common |= {"ways": WAYS, "shots": 1, "ci95": None, "episodes": 30 * TASKS, "published": None, "learner": "sampling"}
    rows = [
        {"metric": "meta-batch, ms", "value": 1000 * medians["ours"]},
        {"metric": "meta-batch between training steps, ms", "value": 1000 * medians["between steps"]},
        {"metric": "meta-batch by Pillow and DataLoader, ms", "value": 1000 * medians["pillow"]},
        {"metric": "ratio", "value": ratio},
        {"metric": "share of a 60-way prototypical step", "value": share},
    ]
    write_rows("sampling", [{**common, **row, "seconds": round(sum(map(sum, times.values())))} for row in rows])


if __name__ == "__main__":
    main()
