"""An alphabet of one's own: all characters of an Omniglot alphabet that no encoder has seen, from a few drawings of each.

The estimator is fitted to one drawing of each character, or five, and asked for five others of each, by the nearest mean of
what an encoder makes of them: one trained on other alphabets of Omniglot, one trained on glyphs, which a program invents and
draws, one with random weights, and none. Nothing is chosen here. The interval is over alphabets.

    kshot train prototypical --data omniglot --every 500 --val-tasks 300 --minutes 30 --out runs/proto
    kshot train prototypical --data glyphs --every 500 --val-tasks 300 --minutes 10 --out runs/glyphs
    python benchmarks/alphabets.py --omniglot runs/proto --glyphs runs/glyphs
"""

import argparse
import math
import statistics
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from kshot.allocator import keep_freed_memory
from kshot.checkpoint import load_checkpoint
from kshot.cli.models import encoder_of
from kshot.estimators import FewShotClassifier
from kshot.nets.conv import Conv4
from kshot.tasks.labelled import LabelledData
from kshot.tasks.omniglot import omniglot
from rows import write_rows

LEAST = 20  # characters of an alphabet that is asked; one has a few of its letters in the test split, and no more
DRAWS, QUERIES = 10, 5


def alphabets(data: LabelledData) -> dict[str, list[int]]:
    """Return the classes of each alphabet of a split."""
    found: dict[str, list[int]] = {}
    for number, name in enumerate(data.classes):
        found.setdefault(name.split("/")[0], []).append(number)
    return {name: classes for name, classes in found.items() if len(classes) >= LEAST}


def accuracy(model: FewShotClassifier, data: LabelledData, classes: list[int], shots: int, seed: int) -> float:
    """Fit the drawings of one draw, and return the share of others that is answered right."""
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(np.flatnonzero(data.labels.numpy() == c))[: shots + QUERIES] for c in classes]
    support, asked = (np.concatenate([rows[part] for rows in drawn]) for part in (slice(shots), slice(shots, None)))
    model.fit(data.x[support], data.labels[support].numpy())
    return float((model.predict(data.x[asked]) == data.labels[asked].numpy()).mean())


def main() -> None:
    """Fit every alphabet with every encoder, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--omniglot", type=Path, required=True, help="a run on Omniglot's alphabets of training")
    parser.add_argument("--glyphs", type=Path, required=True, help="a run on glyphs")
    options = parser.parse_args()
    keep_freed_memory()
    warnings.filterwarnings("ignore", "pictures are compared as tiny pictures")
    torch.manual_seed(0)
    data = omniglot("vinyals").test
    encoders: dict[str, tuple[Any, float]] = {"none: tiny pictures": (None, 0), "Conv4, random weights": (Conv4(1), 0)}
    for name, run in (("glyphs", options.glyphs), ("Omniglot's other alphabets", options.omniglot)):
        seconds = load_checkpoint(run / "last.safetensors")["position"]["seconds"]
        encoders[f"Conv4, trained on {name}"] = encoder_of(str(run))[0], seconds
    rows = []
    for name, (encoder, seconds) in encoders.items():
        for shots in (1, 5):
            model, means = FewShotClassifier(encoder), []
            for classes in alphabets(data).values():
                means.append(statistics.fmean(accuracy(model, data, classes, shots, seed) for seed in range(DRAWS)))
            half_width = student.ppf(0.975, len(means) - 1) * statistics.stdev(means) / math.sqrt(len(means))
            print(f"{name}, {shots} shots: {100 * statistics.fmean(means):.2f} ± {100 * half_width:.2f}", flush=True)
            rows.append(
                {
                    "data": "omniglot",
                    "protocol": f"all characters of a test alphabet, {len(means)} alphabets, {DRAWS} draws of each",
                    "metric": "accuracy",
                    "value": statistics.fmean(means),
                    "ci95": float(half_width),
                    "learner": name,
                    "shots": shots,
                    "seed": 0,
                    "seconds": round(seconds),
                }
            )
    write_rows("alphabets", rows)


if __name__ == "__main__":
    main()
