"""Omniglot: the best learner of a run, judged once on the test characters at 5-way and 20-way, 1 shot.

Snell, Swersky, Zemel 2017, "Prototypical networks for few-shot learning", table 1: 1,000 test tasks, 15 queries a class.

As in the paper, the final net is trained on training and validation classes together, with a schedule that validation chose.

    kshot train prototypical --data omniglot --resize antialiased --mirror --with-val --minutes 24.5 --halve-every 1000
    python benchmarks/omniglot.py runs/prototypical-omniglot
"""

import argparse
import json
from pathlib import Path

from kshot.allocator import keep_freed_memory
from kshot.checkpoint import load_checkpoint, load_learner
from kshot.cli.build import build_learner, fixed_tasks
from kshot.cli.run_config import learner_name, load_config
from kshot.evaluation import evaluate
from rows import result_row, write_rows

PUBLISHED = {("prototypical", 5, 1): 98.8, ("prototypical", 20, 1): 96.0}


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
    name = learner_name(told)
    changes = {"antialiased": told.resize == "antialiased", "distorted": told.distort, "mirrored": told.mirror}
    variant = ", ".join(["train and val" if told.with_val else "train", *(name for name, on in changes.items() if on)])
    rows = []
    for ways in (5, 20):
        result = evaluate(learner, fixed_tasks(told, "test", options.tasks, ways, 1, 15))
        print(f"{ways}-way: {result}")
        rows.append(
            result_row(
                result,
                learner=name,
                ways=ways,
                shots=1,
                published=PUBLISHED.get((name, ways, 1)),
                seed=told.seed,
                seconds=round(position["seconds"]),
                steps=position["step"],
                variant=variant,
                selected="last weights"
                if told.with_val
                else f"best on {told.val_tasks} {told.ways}-way validation tasks",
                training=json.loads((options.run / "config.json").read_text())["options"],
            )
        )
    write_rows("omniglot", rows)


if __name__ == "__main__":
    main()
