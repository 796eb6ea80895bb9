"""Sinusoid regression beside MAML: a closed-form head, Gaussian processes, deep kernels, and an ensemble of MAMLs.

The test tasks are those of ``sinusoid.py``, 5 points each. The closed-form learners train with 5 support points and 10
more, 25 tasks a step, Adam with 1e-3 falling to zero by a cosine; their bodies have two hidden layers. Validation tasks
choose one of two widths, and the weights. The ensemble is of five MAMLs, each trained as in ``sinusoid.py``; validation
tasks choose its step size for each number of steps, since with that of training some members diverge on some tasks.
scikit-learn's Gaussian process learns nothing from other tasks: it fits its kernel to the 5 points by their marginal
likelihood.

    python benchmarks/sinusoid_bayes.py --seed 0
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from torch import nn

from kshot.batching import unstack
from kshot.core import Batch, Episode, Learner
from kshot.evaluation import Evaluation, evaluate
from kshot.learners.ensemble import Ensemble
from kshot.learners.gradient import MAML, DeepKernel, Ridge, kernels
from kshot.losses import mean_squared_error
from kshot.nets.mlp import MLP
from kshot.report.figures import Panel, save_wave_figure
from kshot.tasks.sinusoid import Sinusoids
from rows import result_row, write_rows
from sinusoid import FIGURES, PUBLISHED, best_step_size, fresh_tasks
from train_once import train_to_best

WIDTHS = (40, 100)
STEP_SIZES = (0.001, 0.002, 0.005, 0.01)
PLAIN = "GP, kernel learned from tasks"
CLOSED_FORM: dict[str, Callable[[int], Learner]] = {
    "Ridge": lambda width: Ridge(MLP(1, width, width, width), mean_squared_error),
    "DeepKernel, linear": lambda width: DeepKernel(MLP(1, width, width, width), kernels.linear),
    "DeepKernel, Gaussian": lambda width: DeepKernel(MLP(1, width, width, width)),
    PLAIN: lambda width: DeepKernel(nn.Linear(1, width, bias=False)),
}


def trained(learner: Learner, out: Path, shots: int, steps: int, seed: int, decay: bool) -> tuple[float, float]:
    """Train into a folder, or read what it holds; return the best validation error and the seconds."""
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    position = train_to_best(
        learner,
        Sinusoids(shots=shots, queries=10, seed=1000 + seed),
        out,
        steps=steps,
        tasks_per_step=25,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if decay else None,
        validation=Sinusoids(shots=shots, queries=50, seed=1, length=1000),
        every=1000,
        compiled=True,
        seed=seed,
    )
    return float(position["best"]), float(position["seconds"])


def closed_form(name: str, widths: tuple[int, ...], options: argparse.Namespace) -> tuple[Learner, dict[str, Any]]:
    """Train a body of each width, and return the one that validation tasks prefer with what its row says."""
    candidates = []
    for width in widths:
        torch.manual_seed(options.seed)
        learner = CLOSED_FORM[name](width)
        out = options.out / f"{name}-{width}-{options.seed}"
        error, seconds = trained(learner, out, 5, options.steps, options.seed, decay=True)
        told = {"variant": f"width {width}", "steps": options.steps, "seconds": round(seconds), "validation": error}
        candidates.append((learner, told))
    return min(candidates, key=lambda candidate: float(candidate[1]["validation"]))


def fitted_to_each_task(tasks: Sinusoids) -> Evaluation:
    """Predict the queries of each task by scikit-learn's Gaussian process, its kernel fitted to the support set."""
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * RBF(1.0, (1e-1, 1e2)) + WhiteKernel(1e-2, (1e-6, 1.0))
    scores = []
    for task in unstack(tasks.sample(np.arange(len(tasks)))):
        (x, y), (query, expected) = (Batch(*(part.double().numpy() for part in batch)) for batch in task)
        process = GaussianProcessRegressor(kernel, n_restarts_optimizer=3, random_state=0)
        with warnings.catch_warnings():
            # A kernel parameter at its bound: with 5 points often the best there is.
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(x, y[:, 0])
        scores.append(((process.predict(query) - expected[:, 0]) ** 2).mean())
    stamp = {**tasks.stamp, "learner": "GaussianProcessRegressor", "inference": "inductive"}
    return Evaluation("MSE", False, torch.tensor(scores, dtype=torch.float64), stamp)


def ensemble(models: list[MLP], steps: int, lr: float = 0.01, differentiate: Any = "mixed") -> Ensemble:
    return Ensemble([MAML(model, lr, steps, differentiate, loss=mean_squared_error) for model in models])


def band_panels(learners: list[tuple[str, DeepKernel, int]], seed: int = 5) -> list[Panel]:
    """Predict one wave from its first points, with a band of two standard deviations."""
    tasks = Sinusoids(5, seed=seed)
    task: Episode = unstack(tasks.sample(np.arange(1)))[0]
    amplitude, phase = (value[0, 0, 0] for value in tasks.waves(np.arange(1)))
    x = torch.linspace(-5, 5, 200)
    panels = []
    for name, learner, count in learners:
        support = Batch(task.support.x[:count], task.support.y[:count])
        with torch.no_grad():
            state = learner.adapt(Batch(learner.encode(support.x), support.y))
            z = learner.encode(x[:, None])
            mean, deviation = learner.predict(state, z)[:, 0], learner.deviation(state, z)
        curves = {"mean before": torch.zeros_like(x), "mean": mean}
        band = mean - 2 * deviation, mean + 2 * deviation
        title = f"{name}, {count} point{'s' * (count > 1)}"
        panels.append(Panel(title, x, amplitude * (x - phase).sin(), support, curves, band))
    return panels


def main() -> None:
    """Train, judge each learner once on the test tasks, and write rows and the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20_000, help="of the learners in closed form")
    parser.add_argument("--maml-steps", type=int, default=70_000)
    parser.add_argument("--out", type=Path, default=Path("runs/sinusoid-bayes"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # the nets are too small for more
    rows = []

    def add(name: str, result: Evaluation, gradient_steps: int = 0, **more: Any) -> None:
        print(f"{name}, {gradient_steps} steps: {result}")
        told = {"learner": name, "ways": None, "shots": 5, "gradient_steps": gradient_steps, "published": None}
        rows.append(result_row(result, **{**told, **more}, seed=options.seed))

    learners = {name: closed_form(name, (1,) if name == PLAIN else WIDTHS, options) for name in CLOSED_FORM}
    for name, (learner, told) in learners.items():
        add(name, evaluate(learner, fresh_tasks(), 100), **told)
    start = time.monotonic()
    result = fitted_to_each_task(fresh_tasks())
    add("GP, kernel fitted to each task", result, seconds=round(time.monotonic() - start), steps=0)

    torch.manual_seed(options.seed)
    models = [MLP(1, 40, 40, 1) for _ in range(5)]
    # Reverse mode gives the same gradient as mixed, and compiled is the fastest.
    together = ensemble(models, 1, differentiate="reverse")
    out = options.out / f"ensemble-{options.seed}"
    _, seconds = trained(together, out, 10, options.maml_steps, options.seed, decay=False)
    for steps in PUBLISHED["MAML"]:
        lr = best_step_size(lambda lr, steps=steps: ensemble(models, steps, lr), STEP_SIZES)
        result = evaluate(ensemble(models, steps, lr), fresh_tasks(), 100)
        add("5 MAMLs", result, steps, variant=f"step size {lr}", seconds=round(seconds), steps=options.maml_steps)
    write_rows("sinusoid", rows)

    plain, deep = (learners[name][0] for name in (PLAIN, "DeepKernel, linear"))
    save_wave_figure(
        FIGURES,
        "uncertainty",
        band_panels([("Gaussian process", plain, 5), ("deep kernel", deep, 1), ("deep kernel", deep, 2)]),
    )


if __name__ == "__main__":
    main()
