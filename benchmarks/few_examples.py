"""The few-line classifier: how long fit and predict take, with MiniLM on sentences and Conv4 on drawings.

Medians over rounds, of 10 classes with 5 examples each and of 1,000 classes with 5. "Cached" is with the embeddings on disk;
a single prediction embeds its example anew.

    python benchmarks/few_examples.py
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kshot.allocator import keep_freed_memory
from kshot.estimators import FewShotClassifier
from kshot.estimators.features import MINILM
from kshot.nets.conv import Conv4
from kshot.tasks.glyphs import glyphs
from rows import write_rows


def median_ms(work: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def sentences(classes: int) -> list[str]:
    """Return sentences of made-up subjects, five of each class."""
    patterns = ("where is my {}", "the {} is broken", "I would like a {}", "how much is a {}", "cancel the {}")
    return [pattern.format(f"thing {c}") for c in range(classes) for pattern in patterns]


def works(encoder: Any, few: Any, large: Any, cache: Path) -> dict[str, Callable[[], Any]]:
    """Return what is timed; embeddings are in the cache from a first fit."""
    y, y_large = (np.repeat(np.arange(count), 5) for count in (10, 1000))
    fresh, cached, large_model = (FewShotClassifier(encoder, cache=folder) for folder in (None, cache, cache))
    return {
        "fit 10 classes of 5": lambda: fresh.fit(few, y),
        "fit 10 classes of 5, cached": lambda: cached.fit(few, y),
        "predict one of 10 classes": lambda: cached.predict(few[:1]),
        "fit 1,000 classes of 5, cached": lambda: large_model.fit(large, y_large),
        "predict one of 1,000 classes": lambda: large_model.predict(few[:1]),
    }


def main() -> None:
    """Time everything and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    keep_freed_memory()
    asked = {
        "MiniLM": (MINILM, sentences(10), sentences(1000)),
        "Conv4": (Conv4(1), glyphs("train").x[:50], torch.rand(5000, 1, 28, 28)),
    }
    rows = []
    for name, (encoder, few, large) in asked.items():
        with tempfile.TemporaryDirectory() as folder:
            for what, work in works(encoder, few, large, Path(folder)).items():
                work()  # the embeddings are written here
                value = median_ms(work, 3 if what.startswith("fit 1,000") else options.rounds)
                print(f"{name}: {what}: {value:.1f} ms", flush=True)
                told = {"learner": f"{name}, nearest mean", "what": what, "metric": "milliseconds", "value": value}
                rows.append({"data": "made up", "seed": 0, "seconds": 0, **told})
    protocol = f"median of {options.rounds}, {torch.get_num_threads()} threads"
    write_rows("few_examples", [{"protocol": protocol, **row} for row in rows])


if __name__ == "__main__":
    main()
