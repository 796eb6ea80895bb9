"""Neural processes, conditional and attentive, beside the exact Gaussian process and beside deep kernels.

Functions of a Gaussian process as in Garnelo et al. 2018, "Conditional neural processes": RBF, length scale 0.4,
amplitude 1, noise 0.02, x in [-2, 2]; 0 to 20 support points in training. Sine waves as in ``sinusoid.py``; 0 to 10 support
points. Nets of width 128, 16 tasks a step, Adam with 1e-3 falling to zero by a cosine. The weights with the best
log-likelihood on validation tasks are judged once on test tasks, which are the same for every learner and every number of
support points. ``behind`` in a row is how far the learner lies below the exact Gaussian process, task by task.

    python benchmarks/neural_process.py --seed 0
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kshot.allocator import keep_freed_memory
from kshot.core import Batch, Episode, Inputs, Learner
from kshot.evaluation import Evaluation, compare, evaluate
from kshot.learners.gradient import DeepKernel, kernels
from kshot.learners.gradient.deep_kernel import Posterior
from kshot.learners.memory import NeuralProcess
from kshot.losses import gaussian_log_likelihood
from kshot.nets.mlp import MLP
from kshot.tasks.functions import GaussianProcesses
from kshot.tasks.sinusoid import Sinusoids
from kshot.tasks.source import TaskSource
from kshot.tasks.variable_shots import VariableShots
from rows import result_row, write_rows
from train_once import train_to_best

TASKS_PER_STEP = 16
MOST = {GaussianProcesses: 20, Sinusoids: 10}  # support points in training
JUDGED = {GaussianProcesses: (0, 1, 3, 5, 10, 20), Sinusoids: (0, 1, 3, 5, 10)}


class Told(Learner):
    """A deep kernel, judged by its mean and deviation as a neural process is; trained as ever."""

    def __init__(self, kernel: DeepKernel) -> None:
        super().__init__(gaussian_log_likelihood)
        self.kernel = kernel

    def encode(self, x: Inputs) -> Tensor:
        return self.kernel.encode(x)

    def adapt(self, support: Batch) -> Posterior:
        return self.kernel.adapt(support)

    def predict(self, state: Posterior, x: Tensor) -> Tensor:
        deviation = self.kernel.deviation(state, x)
        return torch.cat([self.kernel.predict(state, x), deviation.log()[:, None]], -1)

    def task_loss(self, task: Episode) -> Tensor:
        return self.kernel.task_loss(task)


NEURAL: dict[str, Callable[[], Learner]] = {
    "CNP": lambda: NeuralProcess(1),
    "ANP": lambda: NeuralProcess(1, heads=8),
}
KERNELS: dict[str, Callable[[], Learner]] = {
    "DeepKernel, linear": lambda: Told(DeepKernel(MLP(1, 40, 40, 40), kernels.linear)),
    "GP, kernel learned from tasks": lambda: Told(DeepKernel(nn.Linear(1, 1, bias=False))),
}


def trained(learner: Learner, kind: type[Any], steps: int, seed: int, out: Path) -> dict[str, Any]:
    """Train into a folder, or read what it holds; return what a row says of it."""
    most = MOST[kind]
    closed = isinstance(learner, Told)  # a deep kernel learns every number of support points from one task

    def source(fewest: int, queries: int, seed: int, length: int = 1000) -> TaskSource:
        return VariableShots(
            kind(shots=most, queries=queries, seed=seed, length=length), (fewest, most), TASKS_PER_STEP
        )

    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    position = train_to_best(
        learner,
        source(most, 10, 1000 + seed) if closed else source(0, 40, 1000 + seed),
        out,
        steps=steps,
        tasks_per_step=TASKS_PER_STEP,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        validation=source(0, 50, 1, 63 * TASKS_PER_STEP),
        every=500,
        compiled=closed,
        seed=seed,
    )
    return {"steps": steps, "seconds": round(position["seconds"]), "validation": position["best"]}


def exact(source: GaussianProcesses, tasks: TaskSource) -> Evaluation:
    """Judge the posterior of the process that drew the tasks."""
    scores = []
    for start in range(0, len(tasks), 100):
        items = np.arange(start, min(start + 100, len(tasks)))
        drawn = tasks.sample(items)
        predictions = source.exact(drawn, items)
        scores += [gaussian_log_likelihood.metric(*pair) for pair in zip(predictions, drawn.query.y, strict=True)]
    stamp = {**tasks.stamp, "learner": "exact posterior", "inference": "inductive"}
    return Evaluation("log-likelihood", True, torch.stack(scores), stamp)


def main() -> None:
    """Train, judge each learner once on the test tasks, and write rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--test-tasks", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("runs/neural-process"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # the nets are too small for more
    keep_freed_memory()
    rows = []

    def add(name: str, result: Evaluation, shots: int, **more: Any) -> None:
        print(f"{name}: {result}")
        told = {"learner": name, "ways": None, "shots": shots, "published": None, **more}
        rows.append(result_row(result, **told, seed=options.seed))

    for kind in MOST:
        learners = {}
        for name, make in {**NEURAL, **(KERNELS if kind is Sinusoids else {})}.items():
            torch.manual_seed(options.seed)
            learner = make()
            out = options.out / f"{kind.__name__}-{name}-{options.seed}"
            learners[name] = learner, trained(learner, kind, options.steps, options.seed, out)
        for shots in JUDGED[kind]:
            source = kind(shots=max(JUDGED[kind]), queries=100, seed=2, length=options.test_tasks)
            test = VariableShots(source, (shots, shots))
            bound = exact(source, test) if isinstance(source, GaussianProcesses) else None
            if bound is not None:
                add("exact GP", bound, shots, steps=0, seconds=0)
            for name, (learner, told) in learners.items():
                result = evaluate(learner, test, 100)
                behind = None if bound is None else compare(bound, result)
                paired = {} if behind is None else {"behind": behind.difference, "behind_ci95": behind.ci95}
                add(name, result, shots, **told, **paired)
    write_rows("neural_process", rows)


if __name__ == "__main__":
    main()
