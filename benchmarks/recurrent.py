"""Streams of Omniglot characters: a run's accuracy the first time a class comes, the second, and so on, on test characters.

Adam Santoro et al. 2016, "Meta-learning with memory-augmented neural networks", table 1 and its table of string labels.

    kshot train recurrent --preset santoro2016 --data omniglot --minutes 55 --every 1000
    python benchmarks/recurrent.py runs/recurrent-omniglot
"""

import argparse
from pathlib import Path

from kshot.allocator import keep_freed_memory
from kshot.checkpoint import load_checkpoint
from kshot.cli.build import load_best
from kshot.cli.build_tasks import fixed_tasks
from kshot.cli.learner_options import RecurrentOptions
from kshot.cli.run_config import load_config
from kshot.presentations import evaluate_presentations
from omniglot import curve, encoder_learner, encoder_seconds, training
from rows import result_row, write_rows

NAMES = {"mann": "MANN", "ntm": "NTM", "lstm": "LSTM"}
PRESENTATIONS = (1, 2, 3, 5, 10)
PUBLISHED = {  # by cell, labels and ways; at the presentations above
    ("mann", "one-hot", 5): (36.4, 82.8, 91.0, 94.9, 98.1),
    ("lstm", "one-hot", 5): (24.4, 49.5, 55.3, 63.6, 62.5),
    ("mann", "strings", 5): (0.0, 69.5, 80.4, 88.4, 93.1),
    ("lstm", "strings", 5): (0.0, 9.0, 14.2, 21.8, 25.5),
    ("mann", "strings", 15): (0.1, 62.6, 79.3, 88.7, 95.3),
    ("ntm", "strings", 15): (0.0, 35.4, 61.2, 77.7, 88.4),
    ("lstm", "strings", 15): (0.0, 2.2, 2.9, 5.6, 12.7),
}


def main() -> None:
    """Judge a run and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tasks", type=int, default=1000)
    options = parser.parse_args()
    keep_freed_memory()
    told = load_config(options.run)
    assert isinstance(told, RecurrentOptions)
    learner = load_best(options.run, told)
    position = load_checkpoint(options.run / "last.safetensors")["position"]
    unknown = (None,) * len(PRESENTATIONS)
    published = PUBLISHED.get((told.cell, told.labels, told.ways), unknown)
    results = evaluate_presentations(learner, fixed_tasks(told, "test", options.tasks), PRESENTATIONS)
    rows = []
    for theirs, (n, result) in zip(published, results.items(), strict=True):
        print(f"presentation {n}: {result}")
        rows.append(
            result_row(
                result,
                learner=NAMES[told.cell],
                ways=told.ways,
                shots=told.shots,
                labels=told.labels,
                reads=reads(told),
                presentation=n,
                published=theirs,
                seed=told.seed,
                seconds=round(position["seconds"] + encoder_seconds(told)),
                steps=position["step"],
                selected=f"best on {told.val_tasks} validation tasks",
                curve=curve(options.run),
                training=training(options.run),
            )
        )
    write_rows("recurrent", rows)


def reads(told: RecurrentOptions) -> str:
    """Say what a cell is given of a picture."""
    if told.flat:
        return "raw pixels"
    if told.encoder_from is None:
        return "convolutions"
    return f"{'frozen ' * told.freeze_encoder}convolutions of {encoder_learner(told.encoder_from)}"


if __name__ == "__main__":
    main()
