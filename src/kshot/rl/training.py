"""Meta-training of a policy: draw tasks, take a step in them, now and then validate and save."""

import math
import time
from pathlib import Path
from typing import Any, Generic

import numpy as np

from kshot.evaluation import Evaluation
from kshot.rl.environments.base import Environment
from kshot.rl.evaluation import VALIDATION_SEED
from kshot.rl.learner import Outcome, PolicyLearner, S
from kshot.rl.seeds import generator_of
from kshot.run_folder import RunFolder
from kshot.training import Report, Trained, Watch

__all__ = ["train_policy"]

_FIRST_SEED = 1_000  # of training tasks, behind those of validation and test


def train_policy(
    learner: PolicyLearner[S],
    environment: Environment,
    setting: S | None = None,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    every: int = 10,
    validation_tasks: int = 40,
    out: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    watch: Watch | None = None,
) -> Trained:
    """Meta-train a policy.

    Validation is in fixed tasks of its own, and the ``score`` of the learner chooses the best weights by it.

    Args:
        learner: trained in place; it ends with its last weights.
        environment: where tasks come from.
        setting: what a step collects; the learner has a default.
        steps: budget in outer steps.
        minutes: budget in minutes of wall clock, validation included.
        every: steps between validations and checkpoints.
        validation_tasks: how many.
        out: folder for ``metrics.jsonl``, ``last.safetensors`` and ``best.safetensors``.
        resume: go on from what ``out`` holds, as if there had been no break.
        seed: of tasks and of all that is random.
        watch: called after every step; see ``kshot.progress``.

    Raises:
        ValueError: there is no budget, or ``out`` holds a run and ``resume`` is not set.
        FloatingPointError: an action, a reward or the gradient is not finite; the message names the step.
        RuntimeError: the simulator failed; the message names the step. The last checkpoint stands in both cases.
    """
    if steps is None and minutes is None:
        raise ValueError("train_policy needs a budget: pass steps=, minutes= or both.")
    run = _Run(learner, None if out is None else RunFolder(out, resume))
    setting = learner.default_setting if setting is None else setting
    while (reason := run.ending(steps, minutes)) is None:
        learner.at_progress(run.progress(steps, minutes))
        update, returns = run.take_step(environment, setting, seed)
        due = run.step % every == 0 or run.ending(steps, minutes) is not None
        results = learner.judge(environment, setting, validation_tasks, VALIDATION_SEED) if due else []
        report = Report(
            step=run.step,
            loss=-returns[-1],
            seconds=run.seconds,
            progress=run.progress(steps, minutes),
            tasks=run.step * setting.tasks,
            validation=results[min(1, len(results) - 1)] if results else None,
            improved=bool(results) and run.improves(results),
        )
        run.record(report, update, returns, results)
        if watch is not None:
            watch(report)
    return Trained(reason, run.step, run.seconds, run.best)


class _Run(Generic[S]):
    """What changes while training: the weights, and the position in the run."""

    def __init__(self, learner: PolicyLearner[S], folder: RunFolder | None) -> None:
        self.learner, self.folder = learner, folder
        self.step, self.earlier = 0, 0.0
        self.best: float | None = None
        if folder is not None and (content := folder.load_last()) is not None:
            learner.restore(content)
            position = content["position"]
            self.step, self.earlier, self.best = position["step"], position["seconds"], position["best"]
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.start

    def progress(self, steps: int | None, minutes: float | None) -> float:
        return min(1.0, max(self.step / (steps or math.inf), self.seconds / (60 * (minutes or math.inf))))

    def ending(self, steps: int | None, minutes: float | None) -> Any:
        if steps is not None and self.step >= steps:
            return "steps"
        return "minutes" if minutes is not None and self.seconds >= 60 * minutes else None

    def take_step(self, environment: Environment, setting: S, seed: int) -> tuple[Outcome, list[float]]:
        """Take a step in the tasks that are next, by random numbers that depend on the seed and the step alone."""
        first = self.step * setting.tasks
        tasks = environment.draw_tasks(_FIRST_SEED + seed, np.arange(first, first + setting.tasks))
        try:
            taken = self.learner.take_step(environment, tasks, setting, generator_of(_FIRST_SEED + seed, self.step))
        except (FloatingPointError, RuntimeError) as error:
            raise type(error)(f"outer step {self.step + 1}: {error}") from error
        self.step += 1
        return taken

    def improves(self, results: list[Evaluation]) -> bool:
        score = self.learner.score(results)
        if self.best is not None and score <= self.best:
            return False
        self.best = score
        return True

    def record(self, report: Report, update: Outcome, returns: list[float], results: list[Evaluation]) -> None:
        if self.folder is None:
            return
        line = {
            "step": report.step,
            "seconds": round(report.seconds, 2),
            "returns": returns,
            **update.metrics(),
        }
        if results:
            line["validation"] = [result.mean for result in results]
        self.folder.append_metrics(line)
        if not results:
            return
        content = self.learner.state()
        position = {"step": self.step, "seconds": self.seconds, "best": self.best}
        if report.improved:
            self.folder.save_best({**content, "position": position})
        self.folder.save_last({**content, "position": position})
