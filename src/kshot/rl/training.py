"""Meta-training of a policy: draw tasks, take a step in them, now and then validate and save."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic

import numpy as np

from kshot.evaluation import Evaluation
from kshot.interruption import interruption
from kshot.position import Position, check_budget
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
    """Meta-train a policy until a budget is used up, or Ctrl-C.

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
        seed: of tasks and of all that is random; at least 0, for those below are of validation and test.
        watch: called after every step; see ``kshot.progress``.

    Raises:
        ValueError: there is no budget, a number is out of its range, or ``out`` holds a run and ``resume`` is not set.
        FloatingPointError: an action, a reward or the gradient is not finite; the message names the step.
        RuntimeError: the simulator failed; the message names the step. The last checkpoint stands in both cases.
    """
    check_budget("train_policy", steps, minutes)
    if every < 1 or validation_tasks < 1 or seed < 0:
        found = f"{every}, {validation_tasks} and {seed}"
        raise ValueError(f"expected every >= 1, validation_tasks >= 1 and seed >= 0; found {found}.")
    run = _Run(learner, None if out is None else RunFolder(out, resume))
    setting = learner.default_setting if setting is None else setting
    with interruption() as interrupted:
        reason = run.ending(steps, minutes, interrupted)
        while reason is None:
            learner.at_progress(run.progress(steps, minutes))
            update, returns = run.take_step(environment, setting, seed)
            reason = run.ending(steps, minutes, interrupted)
            due = run.step % every == 0 or reason not in (None, "interrupted")
            results = run.judge(environment, setting, validation_tasks) if due else []
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
            # A clock that ran out since must not end the run without the validation of its last step.
            reason = reason or run.ending(steps, minutes if due else None, interrupted)
    run.save()
    return Trained(reason, run.step, run.seconds, run.best)


class _Run(Position, Generic[S]):
    """What changes while training: the weights, and the position in the run."""

    def __init__(self, learner: PolicyLearner[S], folder: RunFolder | None) -> None:
        super().__init__()
        self.learner, self.folder = learner, folder
        if folder is not None and (content := folder.load_last()) is not None:
            learner.restore(content)
            position = content["position"]
            self.step, self.earlier, self.best = position["step"], position["seconds"], position["best"]
        else:
            self.save()  # so that a run killed before its first validation can be resumed

    def take_step(self, environment: Environment, setting: S, seed: int) -> tuple[Outcome, list[float]]:
        """Take a step in the tasks that are next, by random numbers that depend on the seed and the step alone."""
        first = self.step * setting.tasks
        tasks = environment.draw_tasks(_FIRST_SEED + seed, np.arange(first, first + setting.tasks))
        with _naming(f"outer step {self.step + 1}"):
            taken = self.learner.take_step(environment, tasks, setting, generator_of(_FIRST_SEED + seed, self.step))
        self.step += 1
        return taken

    def judge(self, environment: Environment, setting: S, tasks: int) -> list[Evaluation]:
        with _naming(f"validation after outer step {self.step}"):
            return self.learner.judge(environment, setting, tasks, VALIDATION_SEED)

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
        if report.improved:
            self.folder.save_best(self._content())
        if results:
            self.save()

    def save(self) -> None:
        if self.folder is not None:
            self.folder.save_last(self._content())

    def _content(self) -> dict[str, Any]:
        position = {"step": self.step, "seconds": self.seconds, "best": self.best}
        return {**self.learner.state(), "position": position}


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Say where in training something failed."""
    try:
        yield
    except (FloatingPointError, RuntimeError) as error:
        raise type(error)(f"{place}: {error}") from error
