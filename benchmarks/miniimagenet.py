"""miniImageNet: the best MAML of a run, judged once on the 20 test classes. The pictures are a lossy copy.

Finn et al. 2017, "Model-agnostic meta-learning", table 1: 600 test tasks, as many queries a class as shots; there 10 steps.
docs/results.md says how the runs were trained.

    python benchmarks/miniimagenet.py runs/maml-miniimagenet
"""

import argparse
from dataclasses import replace
from pathlib import Path

from kshot.allocator import keep_freed_memory
from kshot.cli.run_config import load_config
from omniglot import judge, name_of
from rows import write_rows

PUBLISHED: dict[tuple[str, int], dict[int, float | None]] = {  # by learner and shots, then by ways
    ("MAML", 1): {5: 48.70},
    ("MAML", 5): {5: 63.11},
}


def main() -> None:
    """Judge a run and write its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tasks", type=int, default=600)
    options = parser.parse_args()
    keep_freed_memory()
    told = load_config(options.run)
    shots = told.shots or 1
    judged = replace(told, queries=shots)  # whatever validation had
    write_rows("miniimagenet", judge(options.run, judged, PUBLISHED[name_of(told), shots], options.tasks))


if __name__ == "__main__":
    main()
