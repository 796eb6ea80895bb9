"""Omniglot: the best learner of a run, judged once on the test characters, at 5-way and 20-way where a paper has both.

Snell, Swersky, Zemel 2017, "Prototypical networks for few-shot learning", table 1: 1,000 test tasks, 15 queries a class.
Vinyals et al. 2016, "Matching networks for one shot learning", table 1, without fine-tuning.
Sung et al. 2018, "Learning to compare", table 1; their own split, best of the checkpoints on test tasks.

Where it says so, the final net is trained on training and validation classes together, with a schedule that validation
chose, as in the first of these papers.

    kshot train prototypical --data omniglot --resize antialiased --mirror --with-val --minutes 24.5 --halve-every 1000
    python benchmarks/omniglot.py runs/prototypical-omniglot
"""

import argparse
import json
from pathlib import Path

from kshot.allocator import keep_freed_memory
from kshot.checkpoint import load_checkpoint, load_learner
from kshot.cli.build import build_learner, fixed_tasks
from kshot.cli.options import LearnerOptions, MatchingOptions, RelationOptions
from kshot.cli.run_config import learner_name, load_config
from kshot.evaluation import evaluate
from kshot.run_folder import RunFolder
from rows import result_row, write_rows

PUBLISHED: dict[tuple[str, int], dict[int, float]] = {  # by learner and shots, then by ways
    ("prototypical", 1): {5: 98.8, 20: 96.0},
    ("prototypical", 5): {5: 99.7, 20: 98.9},
    ("matching", 1): {5: 98.1, 20: 93.8},
    ("matching", 5): {5: 98.9, 20: 98.5},
    ("relation", 1): {5: 99.6},
    ("relation", 5): {5: 99.8},
}


def variant(told: LearnerOptions) -> str:
    """Say what a run was trained on, and what it does otherwise than others of its name."""
    words = {
        "train and val" if told.with_val else "train": True,
        f"the split of {told.protocol}": told.protocol != "vinyals",
        "antialiased": told.resize == "antialiased",
        "distorted": told.distort,
        "mirrored": told.mirror,
    }
    if isinstance(told, MatchingOptions):
        words[f"{told.distance.replace('-', ' ')} attention"] = True
    if isinstance(told, RelationOptions):
        words["transductive"] = told.batch_statistics
    return ", ".join(word for word, holds in words.items() if holds)


def curve(run: Path) -> list[tuple[int, float]]:
    """Return the accuracy on validation tasks by step."""
    lines = RunFolder(run, resume=True).read_metrics()
    return [(line["step"], line["val_accuracy"]) for line in lines if "val_accuracy" in line]


def main() -> None:
    """Judge a run and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tasks", type=int, default=1000)
    options = parser.parse_args()
    keep_freed_memory()
    told = load_config(options.run)
    learner = build_learner(told)
    load_learner(options.run / "best.safetensors", learner)
    position = load_checkpoint(options.run / "last.safetensors")["position"]
    name, shots = learner_name(told), told.shots or 1
    rows = []
    for ways, published in PUBLISHED[name, shots].items():
        result = evaluate(learner, fixed_tasks(told, "test", options.tasks, ways, shots, 15))
        print(f"{ways}-way: {result}")
        rows.append(
            result_row(
                result,
                learner=name,
                ways=ways,
                shots=shots,
                published=published,
                seed=told.seed,
                seconds=round(position["seconds"]),
                steps=position["step"],
                variant=variant(told),
                selected="last weights"
                if told.with_val
                else f"best on {told.val_tasks} {told.ways}-way validation tasks",
                curve=curve(options.run),
                training=json.loads((options.run / "config.json").read_text())["options"],
            )
        )
    write_rows("omniglot", rows)


if __name__ == "__main__":
    main()
