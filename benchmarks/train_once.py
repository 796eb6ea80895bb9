"""How benchmarks train a learner into a folder of its own, once."""

import json
from pathlib import Path
from typing import Any

import torch

from kshot.checkpoint import load_checkpoint, load_learner
from kshot.core import Learner
from kshot.progress import show_progress
from kshot.tasks.source import TaskSource
from kshot.training import train


def train_once(learner: Learner, tasks: TaskSource, out: Path, *, steps: int, halve_every: int, seed: int) -> float:
    """Train by Adam, its rate halved now and then, into a folder, or read its last weights; return the seconds."""
    last, best = out / "last.safetensors", out / "best.safetensors"
    _keep_recipe(out, {"steps": steps, "halve_every": halve_every, "seed": seed})
    if not best.exists():
        optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
        train(
            learner,
            tasks,
            steps=steps,
            tasks_per_step=1,
            optimizer=optimizer,
            scheduler=torch.optim.lr_scheduler.StepLR(optimizer, halve_every, 0.5),
            out=out,
            resume=last.exists(),
            seed=seed,
        )
    load_learner(best, learner)
    return float(load_checkpoint(last)["position"]["seconds"])


def train_to_best(learner: Learner, tasks: TaskSource, out: Path, *, steps: int, **how: Any) -> dict[str, Any]:
    """Train into a folder, going on with what it holds, or read a run that has as many steps; load its best weights.

    Return its position: the steps, the seconds and the best validation score. ``how`` is told to ``train``.
    """
    last = out / "last.safetensors"
    # No flags: compiled or not, it is one recipe.
    numbers = {name: value for name, value in how.items() if type(value) in (int, float)}
    _keep_recipe(out, {"steps": steps, "lr": how["optimizer"].defaults["lr"], **numbers})
    if not last.exists() or load_checkpoint(last)["position"]["step"] < steps:
        with show_progress(out.name) as watch:
            train(learner, tasks, steps=steps, out=out, resume=last.exists(), watch=watch, **how)
    load_learner(out / "best.safetensors", learner)
    position: dict[str, Any] = load_checkpoint(last)["position"]
    return position


def _keep_recipe(out: Path, recipe: dict[str, float]) -> None:
    """Write down how a folder is trained, or refuse one that another recipe was trained into: its row would be wrong."""
    path = out / "recipe.json"
    before = json.loads(path.read_text()) if path.exists() else recipe
    if before != recipe:
        raise ValueError(f"{out} holds a run of {before}; found {recipe}. Choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(recipe))
