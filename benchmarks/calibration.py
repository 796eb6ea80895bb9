"""Calibration: one net beside five that were initialised apart, on invented characters.

Conv4, 20-way 1-shot tasks of glyphs, 5 queries a class, 4 tasks a step, Adam with 1e-3 halved each 100 steps; last weights.
Judged once on 1,000 5-way 1-shot tasks of unseen alphabets. Nothing is chosen, so no validation tasks are needed.

    python benchmarks/calibration.py --seed 0
"""

import argparse
from collections.abc import Callable

import torch

from kshot.allocator import keep_freed_memory
from kshot.core import Learner
from kshot.evaluation import compare, evaluate
from kshot.learners.ensemble import Ensemble
from kshot.learners.gradient import Ridge
from kshot.learners.metric import Prototypical
from kshot.nets.conv import Conv4
from kshot.progress import show_progress
from kshot.tasks.episodes import Episodes
from kshot.tasks.glyphs import glyphs
from kshot.training import train
from rows import result_row, write_rows

LEARNERS: dict[str, Callable[[], Learner]] = {
    "Prototypical": lambda: Prototypical(Conv4(channels=1)),
    "Ridge": lambda: Ridge(Conv4(channels=1)),
}


def main() -> None:
    """Train five of each learner together, and write a row for the first and for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    keep_freed_memory()
    rows = []
    for name, make in LEARNERS.items():
        torch.manual_seed(options.seed)
        members = [make() for _ in range(5)]
        together = Ensemble(members)
        tasks = Episodes(glyphs("train"), ways=20, shots=1, queries=5, seed=options.seed)
        optimizer = torch.optim.Adam(together.parameters(), 1e-3)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 100, 0.5)
        with show_progress(name) as watch:
            trained = train(
                together,
                tasks,
                steps=options.steps,
                tasks_per_step=4,
                optimizer=optimizer,
                scheduler=scheduler,
                seed=options.seed,
                watch=watch,
            )
        test = Episodes(glyphs("test"), ways=5, shots=1)
        results = {1: evaluate(members[0], test), 5: evaluate(together, test)}
        print(compare(results[5], results[1]))
        for count, result in results.items():
            print(f"{name}, {count}: {result}")
            told = {"learner": name, "members": count, "calibration_error": result.calibration_error}
            protocol = {"ways": 5, "shots": 1, "published": None, "steps": options.steps, "seed": options.seed}
            rows.append(result_row(result, **told, **protocol, seconds=round(trained.seconds * count / 5)))
    write_rows("calibration", rows)


if __name__ == "__main__":
    main()
