"""Meta-training of a policy: collect, adapt, collect again, and take an outer step."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kshot.evaluation import Evaluation
from kshot.rl.advantages import to_samples
from kshot.rl.collect import collect
from kshot.rl.environments.base import Environment
from kshot.rl.evaluation import VALIDATION_SEED, adaptation_curve
from kshot.rl.learner import Outcome, PolicyLearner
from kshot.rl.seeds import generator_of
from kshot.rl.trajectories import Samples
from kshot.run_folder import RunFolder
from kshot.training import Report, Trained, Watch

__all__ = ["Setting", "train_policy"]

_FIRST_SEED = 1_000  # of training tasks, behind those of validation and test


@dataclass(frozen=True)
class Setting:
    """What a training step collects.

    Args:
        tasks: the meta-batch size.
        trajectories: of each task before each inner step, and after the last.
        steps: inner steps; without any it is ordinary TRPO on all tasks together, which is how a policy is pretrained.
        discount: gamma.
        decay: lambda of the advantage estimates.
        test_rates: step sizes of the adaptation that is validated.
    """

    tasks: int = 20
    trajectories: int = 20
    steps: int = 1
    discount: float = 0.99
    decay: float = 1.0
    test_rates: Sequence[float] = (0.1, 0.05, 0.05)

    def __post_init__(self) -> None:
        if self.tasks < 1 or self.trajectories < 1 or self.steps < 0:
            found = f"{self.tasks}, {self.trajectories} and {self.steps}"
            raise ValueError(f"expected tasks >= 1, trajectories >= 1 and steps >= 0; found {found}.")


def train_policy(
    learner: PolicyLearner,
    environment: Environment,
    setting: Setting | None = None,
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

    Validation adapts to fixed tasks of its own, and chooses the best weights by the mean return after one step of
    adaptation, after two, and so on; where there are no ``test_rates``, by the return without adaptation.

    Args:
        learner: trained in place; it ends with its last weights.
        environment: where tasks come from.
        setting: what a step collects.
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
    setting = Setting() if setting is None else setting
    while (reason := run.ending(steps, minutes)) is None:
        update, returns = run.take_step(environment, setting, seed)
        due = run.step % every == 0 or run.ending(steps, minutes) is not None
        results = run.validate(environment, setting, validation_tasks) if due else []
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


class _Run:
    """What changes while training: the weights, and the position in the run."""

    def __init__(self, learner: PolicyLearner, folder: RunFolder | None) -> None:
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

    def take_step(self, environment: Environment, setting: Setting, seed: int) -> tuple[Outcome, list[float]]:
        """Take an outer step; return it, and the mean return before each inner step and after the last."""
        first = self.step * setting.tasks
        tasks = environment.draw_tasks(_FIRST_SEED + seed, np.arange(first, first + setting.tasks))
        generator, inner = generator_of(_FIRST_SEED + seed, self.step), self.learner.inner
        weights, path, returns = inner.start(setting.tasks), list[Samples](), []
        try:
            for number in range(setting.steps + 1):
                found = collect(environment, inner.policy, weights, tasks, setting.trajectories, generator)
                path.append(to_samples(found, setting.discount, setting.decay))
                returns.append(found.returns().mean().item())
                if number < setting.steps:
                    weights = inner(weights, path[-1])
            update = self.learner.update(path[:-1], path[-1])
        except (FloatingPointError, RuntimeError) as error:
            raise type(error)(f"outer step {self.step + 1}: {error}") from error
        self.step += 1
        return update, returns

    def validate(self, environment: Environment, setting: Setting, tasks: int) -> list[Evaluation]:
        return adaptation_curve(
            self.learner.inner,
            environment,
            tasks=tasks,
            rates=setting.test_rates,
            trajectories=setting.trajectories,
            discount=setting.discount,
            decay=setting.decay,
            seed=VALIDATION_SEED,
        )

    def improves(self, results: list[Evaluation]) -> bool:
        judged = results[1:] or results
        score = sum(result.mean for result in judged) / len(judged)
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
