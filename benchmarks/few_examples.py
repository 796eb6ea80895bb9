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


def main() -> None:
    """Time everything and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    keep_freed_memory()
    drawings = glyphs("train").x[:50]
    many = torch.rand(5000, 1, 28, 28)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        encoders = {"MiniLM": MINILM, "Conv4": Conv4(1)}
        rows = []
        for name, encoder in encoders.items():
            few: Any = sentences(10) if name == "MiniLM" else drawings
            large: Any = sentences(1000) if name == "MiniLM" else many
            y, y_large = (np.repeat(np.arange(count), 5) for count in (10, 1000))
            fresh = FewShotClassifier(encoder)
            model = FewShotClassifier(encoder, cache=cache).fit(few, y)  # the embeddings are written here
            large_model = FewShotClassifier(encoder, cache=cache).fit(large, y_large)
            one = few[:1]
            works: dict[str, tuple[Callable[[], Any], int]] = {
                "fit 10 classes of 5": (lambda: fresh.fit(few, y), 5),  # noqa: B023, called before the next round
                "fit 10 classes of 5, cached": (lambda: model.fit(few, y), options.rounds),  # noqa: B023
                "fit 1,000 classes of 5, cached": (lambda: large_model.fit(large, y_large), 3),  # noqa: B023
                "predict one of 10 classes": (lambda: fresh.predict(one), options.rounds),  # noqa: B023
                "predict one of 1,000 classes": (lambda: plain(large_model).predict(one), options.rounds),  # noqa: B023
            }
            for what, (work, rounds) in works.items():
                work()
                value = median_ms(work, rounds)
                print(f"{name}: {what}: {value:.1f} ms")
                rows.append(
                    {"learner": f"{name}, nearest mean", "what": what, "metric": "milliseconds", "value": value}
                )
    protocol = f"median, {torch.get_num_threads()} threads"
    write_rows(
        "few_examples", [{"data": "random", "protocol": protocol, "seed": 0, "seconds": 0, **row} for row in rows]
    )


def plain(model: FewShotClassifier) -> FewShotClassifier:
    """Return the model without its cache, so that a prediction embeds its example."""
    object.__setattr__(model.features_, "cache", None)
    return model


if __name__ == "__main__":
    main()
