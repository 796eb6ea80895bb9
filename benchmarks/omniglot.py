"""Omniglot: the best learner of a run, judged once on the test characters, at 5-way and 20-way where a paper has both.

Snell, Swersky, Zemel 2017, "Prototypical networks for few-shot learning", table 1: 1,000 test tasks, 15 queries a class.
Vinyals et al. 2016, "Matching networks for one shot learning", table 1, without fine-tuning.
Sung et al. 2018, "Learning to compare", table 1; their own split, best of the checkpoints on test tasks.
Mishra et al. 2018, "A simple neural attentive meta-learner", table 1.
Finn et al. 2017, "Model-agnostic meta-learning", table 1, and its kin: as many queries a class as shots.

Where it says so, the final net is trained on training and validation classes together, with a schedule that validation
chose, as in the first of these papers.

    kshot train prototypical --data omniglot --resize antialiased --mirror --with-val --minutes 24.5 --halve-every 1000
    python benchmarks/omniglot.py runs/prototypical-omniglot
    kshot train maml --preset finn2017 --data omniglot --compile --minutes 105 --every 2000 --val-tasks 600
    python benchmarks/omniglot.py runs/maml-omniglot --tasks 2000
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from kshot.allocator import keep_freed_memory
from kshot.checkpoint import load_checkpoint
from kshot.cli.build import load_best
from kshot.cli.build_tasks import fixed_tasks
from kshot.cli.learner_options import (
    LearnerOptions,
    MAMLOptions,
    MatchingOptions,
    ReptileOptions,
    RidgeOptions,
    SNAILOptions,
)
from kshot.cli.presets import with_preset
from kshot.cli.run_config import learner_name, load_config
from kshot.core import Learner
from kshot.evaluation import evaluate
from kshot.run_folder import read_lines
from rows import result_row, write_rows

PUBLISHED: dict[tuple[str, int], dict[int, float | None]] = {  # by learner and shots, then by ways
    ("prototypical", 1): {5: 98.8, 20: 96.0},
    ("prototypical", 5): {5: 99.7, 20: 98.9},
    ("matching", 1): {5: 98.1, 20: 93.8},
    ("matching", 5): {5: 98.9, 20: 98.5},
    ("relation", 1): {5: 99.6},
    ("relation", 5): {5: 99.8},
    ("MAML", 1): {5: 98.7, 20: 95.8},
    ("MAML", 5): {5: 99.9, 20: 98.9},
    ("MAML, fully connected", 1): {5: 89.7},
    ("first-order MAML", 1): {5: 98.3},
    ("MAML++", 1): {20: 97.65},
    ("ANIL", 1): {20: 96.2},
    ("Meta-SGD", 1): {5: 99.5},
    ("Reptile", 1): {5: 95.39},
    ("Reptile, transductive", 1): {5: 97.68},
    ("R2-D2", 1): {5: 98.6},
    ("iMAML", 1): {5: 99.5},
    ("BOIL", 1): {5: None},
    ("CAVIA", 1): {5: None},
    ("SNAIL", 1): {5: 99.07, 20: 97.64},
    ("in-context", 1): {5: None},
}
UNCONFIRMED = {"R2-D2", "iMAML"}  # published, as quoted where the paper could not be checked
PAPERS = {
    "li2017": "Meta-SGD",
    "antoniou2019": "MAML++",
    "rajeswaran2019": "iMAML",
    "zintgraf2019": "CAVIA",
    "raghu2020": "ANIL",
    "oh2021": "BOIL",
}


def name_of(told: LearnerOptions) -> str:
    """Return what the table calls the learner of a run.

    Raises:
        ValueError: it is none that the table knows: options made another of a preset's learner.
    """
    if isinstance(told, MAMLOptions) and told.preset:
        same = {"no_norm", "mixed", "reverse", "first_order" if told.preset == "finn2017" else ""}
        if changed := _changed(told, "adapts", "learn_lr", "per_step_norm", "differentiate") - same:
            raise ValueError(
                f"{', '.join(sorted(changed))} makes another learner of --preset {told.preset}: name its own paper."
            )
    match told:
        case MAMLOptions(differentiate="first_order"):
            return "first-order MAML"
        case MAMLOptions(net="connected"):
            return "MAML, fully connected"
        case (
            MAMLOptions(preset=None, adapts="all", learn_lr=None, per_step_norm=False) | MAMLOptions(preset="finn2017")
        ):
            return "MAML"
        case MAMLOptions(preset=str(paper)):
            return PAPERS[paper]
        case MAMLOptions():
            raise ValueError("name the paper of this variant of MAML by --preset, so that its row has a name.")
        case ReptileOptions(tail=True):
            return "first-order MAML"
        case ReptileOptions():
            return "Reptile, transductive" if told.transductive else "Reptile"
        case RidgeOptions():
            return "R2-D2"
        case SNAILOptions():
            return "SNAIL"
    return learner_name(told)


def variant(told: LearnerOptions, learner: Learner) -> str:
    """Say what a run was trained on, and what it does otherwise than others of its name."""
    words = {
        "train and val" if told.with_val else "train": True,
        f"the split of {told.protocol}": told.protocol != "vinyals",
        "antialiased": told.resize == "antialiased",
        "distorted": told.distort,
        "mirrored": told.mirror,
    }
    if told.encoder_from is not None:
        how = "on the frozen" if told.freeze_encoder else "after the"
        words[f"{how} encoder of {encoder_learner(told.encoder_from)}"] = True
    if isinstance(told, ReptileOptions):
        words[f"{told.inner_rule} inside"] = told.inner_rule != "adam"
    if isinstance(told, MatchingOptions):
        words[f"{told.distance.replace('-', ' ')} attention"] = True
    if steps := learner.settings.get("inner steps"):
        words[f"{steps} step{'s' * (steps != '1')}"] = True
    if isinstance(told, MAMLOptions):
        words["weights start as in the paper's code"] = told.start == "finn"
        words["last layer at zero"] = told.start == "zero_head"
        if told.feature_length is not None:
            words[f"features of length {told.feature_length:g}"] = True
        words["norms do not adapt"] = told.adapts == "no_norm"
        words["no damping"] = told.differentiate == "implicit" and told.damping == 0
        words[f"{told.filters} filters, {told.net}"] = bool(_changed(told, "filters", "net") - {"connected"})
        words[f"{told.train_queries} training queries a class"] = bool(_changed(told, "train_queries"))
    meta_batch = f"{told.tasks_per_step} task{'s' * (told.tasks_per_step > 1)} a step"
    if isinstance(told, MAMLOptions | ReptileOptions):
        published = _published(told)
        words[f"inner step size {told.inner_lr or 0.4:g}"] = (told.inner_lr or 0.4) != published.inner_lr
        words[meta_batch] = told.tasks_per_step != published.tasks_per_step
    if isinstance(told, SNAILOptions):
        words[meta_batch] = True
    words["transductive"] = learner.transductive
    return ", ".join(word for word, holds in words.items() if holds)


def _changed(told: MAMLOptions | ReptileOptions, *names: str) -> set[str]:
    """Return the values of those options that are not the paper's."""
    published = _published(told)
    return {str(getattr(told, name)) for name in names if getattr(told, name) != getattr(published, name)}


def _published(told: MAMLOptions | ReptileOptions) -> MAMLOptions | ReptileOptions:
    """Return the paper's own settings for a run's data, ways and shots."""
    preset: Any = told.preset or ("nichol2018" if isinstance(told, ReptileOptions) else "finn2017")
    return with_preset(type(told)(preset=preset, data=told.data, ways=told.ways, shots=told.shots))


def curve(run: Path) -> list[tuple[int, float]]:
    """Return the accuracy on validation tasks by step."""
    lines = read_lines(run / "metrics.jsonl")
    return [(line["step"], line["val_accuracy"]) for line in lines if "val_accuracy" in line]


def training(run: Path) -> dict[str, Any]:
    """Return what a run was told, and in place of the run whose encoder it began with, what that was told."""
    told: dict[str, Any] = json.loads((run / "config.json").read_text())["options"]
    if told.get("encoder_from") is not None:
        told["encoder_from"] = training(Path(told["encoder_from"]))
    return told


def encoder_learner(run: str) -> str:
    """Return the name of the learner of the run whose encoder another began with."""
    return learner_name(load_config(Path(run)))


def encoder_seconds(told: LearnerOptions) -> float:
    """Return how long the run was trained whose encoder a run began with, and the one before it, where there is one."""
    if told.encoder_from is None:
        return 0.0
    run = Path(told.encoder_from)
    seconds: float = load_checkpoint(run / "last.safetensors")["position"]["seconds"]
    return seconds + encoder_seconds(load_config(run))


def judge(run: Path, told: LearnerOptions, published: dict[int, float | None], count: int) -> list[dict[str, Any]]:
    """Judge a run on test tasks, ``published`` by ways, and return its rows."""
    learner = load_best(run, told)
    position = load_checkpoint(run / "last.safetensors")["position"]
    seconds = round(position["seconds"] + encoder_seconds(told))
    name, shots = name_of(told), told.shots or 1
    queries = told.queries if learner.fixed_ways else 15  # what papers that take gradient steps judge by
    rows = []
    for ways, figure in published.items():
        if learner.fixed_ways and ways != told.ways:
            continue
        result = evaluate(learner, fixed_tasks(told, "test", count, ways, shots, queries))
        print(f"{ways}-way: {result}")
        rows.append(
            result_row(
                result,
                learner=name,
                ways=ways,
                shots=shots,
                published=figure,
                unconfirmed=name in UNCONFIRMED,
                seed=told.seed,
                seconds=seconds,
                steps=position["step"],
                variant=variant(told, learner),
                selected="last weights"
                if told.with_val
                else f"best on {told.val_tasks} {told.ways}-way validation tasks",
                curve=curve(run),
                training=training(run),
            )
        )
    return rows


def main() -> None:
    """Judge a run and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument(
        "--table", default="omniglot", help="for rows that compare runs of equal minutes: equal_minutes"
    )
    parser.add_argument(
        "--transductive",
        action="store_true",
        help="Reptile's queries normalised by themselves, whatever the run was told",
    )
    options = parser.parse_args()
    keep_freed_memory()
    told = load_config(options.run)
    if options.transductive:
        if not isinstance(told, ReptileOptions):
            parser.error(f"--transductive is for runs of Reptile; {options.run} is of {name_of(told)}.")
        told = replace(told, transductive=True)
    published = PUBLISHED[name_of(told), told.shots or 1]
    write_rows(options.table, judge(options.run, told, published, options.tasks))


if __name__ == "__main__":
    main()
