"""Memory: the peak of one meta-gradient against the number of inner steps, by kshot's modes and by others.

MAML's strided Omniglot net, 5-way 1-shot, 1 query a class, second order. Counted are the bytes of tensors that one step
makes (``kshot.memory``), beyond weights and tasks; what an operation needs only while it runs is not seen. kshot takes all
tasks together, in ``meta_loss(tasks).backward()``, or one at a time, in ``MetaGradient`` with chunks of 1, as higher does;
the textbook loop and torchopt go task by task but keep the graphs of all until the end. The figure shows 8 tasks; 32 tasks
and 20 steps stand in a row of their own.

    pip install -c constraints.txt -e '.[bench]'
    python benchmarks/memory.py
"""

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kshot.allocator import keep_freed_memory
from kshot.learners.gradient import MAML
from kshot.memory import peak_bytes
from kshot.meta_gradient import MetaGradient
from kshot.report.figures import save_figure
from rivals import RIVALS, Problem
from rows import write_rows
from workloads import WORKLOADS, Workload

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
STEPS = (1, 2, 5, 10, 20)
SUBJECT = WORKLOADS["omniglot strided, 1 query"]
MIXED, CHECKPOINTED, REVERSE = "kshot, mixed", "kshot, mixed, checkpoints", "kshot, reverse"
ONE_BY_ONE = "kshot, mixed, chunks of 1"
VARIANTS = (MIXED, CHECKPOINTED, ONE_BY_ONE, REVERSE, "textbook", "higher", "torchopt")
# Colour and dashes: kshot's in the main colour, the others in the muted one.
LOOKS = {
    MIXED: ("main", "-"),
    CHECKPOINTED: ("main", "--"),
    ONE_BY_ONE: ("main", "-."),
    REVERSE: ("main", ":"),
    "textbook": ("muted", "-"),
    "higher": ("muted", "--"),
    "torchopt": ("muted", ":"),
}


def step_of(variant: str, workload: Workload, seed: int) -> Callable[[], Any]:
    """Build one meta-gradient."""
    net, tasks = workload.net(seed), workload.draw(seed)
    if variant in RIVALS:
        return RIVALS[variant](Problem(net, tasks, workload.lr, workload.steps, classes=True))
    every = round(workload.steps**0.5) if variant == CHECKPOINTED else None
    mode: Any = "reverse" if variant == REVERSE else "mixed"
    learner = MAML(net, workload.lr, workload.steps, mode, checkpoint_every=every)
    if variant == ONE_BY_ONE:
        return partial(MetaGradient(learner, chunk_size=1), tasks)
    return lambda: learner.meta_loss(tasks).backward()  # type: ignore[no-untyped-call, no-any-return]


def measured(variant: str, tasks: int, steps: int, seed: int) -> dict[str, Any]:
    """Return the row of one meta-gradient."""
    workload, start = replace(SUBJECT, tasks=tasks, steps=steps), time.perf_counter()
    step = step_of(variant, workload, seed)
    gc.collect()
    row = {
        "learner": "MAML",
        "variant": variant,
        "data": "noise",
        "protocol": f"{workload.protocol}; float32",
        "ways": workload.ways,
        "shots": workload.shots,
        "tasks": tasks,
        "gradient_steps": steps,
        "metric": "peak, bytes",
        "ci95": None,
        "episodes": tasks,
        "published": None,
        "seed": seed,
        "failure": None,
    }
    try:
        row["value"] = peak_bytes(step)
    except Exception as cause:  # a library that cannot do it has that as its result
        row["value"], row["failure"] = None, f"{type(cause).__name__}: {cause}"[:200]
    row["seconds"] = round(time.perf_counter() - start, 1)
    print(f"{variant:28} {tasks:3} tasks {steps:3} steps: {row['failure'] or f'{megabytes(row):9.1f} MB'}", flush=True)
    return row


def megabytes(row: dict[str, Any]) -> float:
    return row["value"] / 1e6  # type: ignore[no-any-return]


def draw_figure(rows: Sequence[dict[str, Any]]) -> None:
    """Write the figure for light and for dark pages."""

    def draw(axes: Any, palette: Any) -> None:
        for variant, (colour, dashes) in LOOKS.items():
            points = [
                (row["gradient_steps"], megabytes(row)) for row in rows if row["variant"] == variant and row["value"]
            ]
            if points:
                axes.plot(*zip(*points, strict=True), dashes, marker="o", color=getattr(palette, colour), label=variant)
        axes.set_title("Peak memory of a meta-gradient, MB")
        axes.set_xlabel("inner gradient steps")
        axes.set_xticks(STEPS)
        axes.set_ylim(0, 1.5 * axes.get_ylim()[1])  # room for the legend above the lines
        axes.legend(loc="upper left", ncols=2)

    save_figure(FIGURES, "memory", (5.6, 3.6), [draw])


def main() -> None:
    """Measure every variant at every number of steps; write rows and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--print-only", action="store_true", help="write no rows and no figure")
    options = parser.parse_args()
    keep_freed_memory()
    rows = [measured(variant, 8, steps, options.seed) for variant in VARIANTS for steps in options.steps]
    whole = measured(MIXED, 32, max(options.steps), options.seed)
    if not options.print_only:
        write_rows("memory", [*rows, whole])
        draw_figure(rows)


if __name__ == "__main__":
    main()
