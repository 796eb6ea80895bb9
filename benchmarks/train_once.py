"""How benchmarks that compare learners train each one: Adam, its rate halved now and then; last weights; once a folder."""

from pathlib import Path

import torch

from kshot.checkpoint import load_checkpoint, load_learner
from kshot.core import Learner
from kshot.tasks.source import TaskSource
from kshot.training import train


def train_once(learner: Learner, tasks: TaskSource, out: Path, *, steps: int, halve_every: int, seed: int) -> float:
    """Train into a folder, going on with what it holds, or read the weights of a run that has ended; return its seconds."""
    last, best = out / "last.safetensors", out / "best.safetensors"
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
