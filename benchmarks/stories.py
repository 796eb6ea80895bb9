"""A memory network on five kinds of questions about generated stories, 1,000 training questions a kind.

Sukhbaatar, Szlam, Weston, Fergus 2015, "End-to-end memory networks", with its network (3 hops, 50 features, 50 sentences,
adjacent tying, position encoding, 10 % time noise, batches of 32) and one network a kind. Training differs: Adam with a
cosine in place of SGD, and 100 epochs. Of some runs, with and without a linear start, the run and the epoch that 1,000
validation stories choose are judged once on 1,000 test stories; the paper keeps the run of the lowest training error. The
published errors are on bAbI's own stories, 1,000 questions a task, joint training: other stories, so not comparable.

    python benchmarks/stories.py --seed 0
"""

import argparse
from pathlib import Path
from typing import Any, get_args

import torch

from kshot.allocator import keep_freed_memory
from kshot.checkpoint import load_checkpoint, load_learner
from kshot.evaluation import evaluate
from kshot.learners.memory import MemoryNetwork
from kshot.progress import show_progress
from kshot.tasks.repeated import Repeated
from kshot.tasks.stories import VOCABULARY, Kind, Stories
from kshot.training import train
from rows import result_row, write_rows

QUESTIONS, BATCH = 1000, 32
# Accuracies on bAbI's tasks 1, 2, 3, 6 and 15: other stories.
PUBLISHED: dict[Kind, float] = {
    "one_fact": 100.0,
    "two_facts": 88.6,
    "three_facts": 78.1,
    "yes_or_no": 97.2,
    "deduction": 100.0,
}
LINEAR_STARTS = (0.0, 0.3)  # shares of training


def trained(kind: Kind, linear_start: float, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one network into a folder, or go on with it, and return it with its error on the validation stories."""
    torch.manual_seed(seed)
    learner = MemoryNetwork(len(VOCABULARY), linear_start=linear_start)
    steps, out = options.epochs * QUESTIONS // BATCH, options.out / f"{kind}-{linear_start}-{seed}"
    if not (out / "last.safetensors").exists() or load_checkpoint(out / "last.safetensors")["position"]["step"] < steps:
        optimizer = torch.optim.Adam(learner.parameters(), options.lr)
        with show_progress(out.name) as watch:
            train(
                learner,
                Repeated(Stories(kind, seed=1000 + seed), QUESTIONS),
                steps=steps,
                tasks_per_step=BATCH,
                optimizer=optimizer,
                scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
                validation=Stories(kind, seed=1, length=QUESTIONS),
                every=5 * QUESTIONS // BATCH,
                out=out,
                resume=(out / "last.safetensors").exists(),
                seed=seed,
                watch=watch,
            )
    load_learner(out / "best.safetensors", learner)
    position = load_checkpoint(out / "last.safetensors")["position"]
    told = {"linear_start": linear_start, "validation": float(position["best"]), "run": seed, "steps": steps}
    return {"learner": learner, "seconds": float(position["seconds"]), **told}


def main() -> None:
    """Train some networks for each kind, judge the one that validation chooses, and write rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--runs", type=int, default=2, help="with and without a linear start each")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--kinds", nargs="+", choices=get_args(Kind), default=list(get_args(Kind)))
    parser.add_argument("--out", type=Path, default=Path("runs/stories"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # the nets are too small for more
    keep_freed_memory()
    for kind in options.kinds:
        seeds = range(options.seed, options.seed + options.runs)
        runs = [trained(kind, linear_start, seed, options) for linear_start in LINEAR_STARTS for seed in seeds]
        best = max(runs, key=lambda run: float(run["validation"]))
        result = evaluate(best.pop("learner"), Stories(kind, seed=2, length=QUESTIONS), 100)
        print(f"{kind}: {result}")
        best["seconds"] = round(sum(run["seconds"] for run in runs))
        variant = f"{kind}, best of {len(runs)} runs on validation stories"
        more = {"learner": "MemoryNetwork", "variant": variant, "ways": None, "shots": None, "seed": options.seed}
        write_rows("stories", [result_row(result, **more, published=PUBLISHED[kind], kind=kind, **best)])


if __name__ == "__main__":
    main()
