"""The meta-training loop: draw tasks, take a step, now and then validate and save."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from kshot.core import Learner, Tasks
from kshot.divergence import culprit, is_finite
from kshot.evaluation import Evaluation, evaluate
from kshot.interruption import interruption
from kshot.meta_gradient import ChunkSize, MetaGradient
from kshot.position import Position, Reason, check_budget
from kshot.run_folder import RunFolder
from kshot.tasks.source import TaskSource, check_source

__all__ = ["Report", "Trained", "Watch", "train"]


@dataclass(frozen=True)
class Report:
    """What the loop tells after every step.

    Args:
        step: optimizer steps taken.
        loss: meta-loss of this step.
        seconds: of training so far, earlier sittings of a resumed run included.
        progress: share of the budget used, 0 to 1.
        tasks: training tasks seen.
        validation: the result, at the steps that validate.
        improved: whether that is the best so far.
    """

    step: int
    loss: float
    seconds: float
    progress: float
    tasks: int
    validation: Evaluation | None = None
    improved: bool = False


@dataclass(frozen=True)
class Trained:
    """How a training run ended.

    Args:
        reason: what ended it.
        steps: optimizer steps taken.
        seconds: of training, earlier sittings included.
        best: the best validation score, None without validation.
    """

    reason: Reason
    steps: int
    seconds: float
    best: float | None


Watch: TypeAlias = Callable[[Report], None]


def train(
    learner: Learner,
    tasks: TaskSource,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    tasks_per_step: int = 16,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    validation: TaskSource | None = None,
    every: int = 500,
    patience: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    chunk_size: ChunkSize = None,
    compiled: bool = False,
    device: torch.device | str | None = None,
    seed: int = 0,
    watch: Watch | None = None,
    gradient: Callable[[Tasks], Tensor] | None = None,
) -> Trained:
    """Meta-train a learner until a budget is used up, validation stops improving, or Ctrl-C.

    With ``validation`` the learner ends with its best weights on it, else with its last. Step i uses tasks
    ``i * tasks_per_step`` and on, and random numbers seeded by (seed, i), so a resumed run goes on bit for bit.

    Args:
        learner: trained in place.
        tasks: where training tasks come from; its length does not matter.
        steps: budget in optimizer steps.
        minutes: budget in minutes of wall clock, validation included.
        tasks_per_step: the meta-batch size.
        optimizer: of the learner's parameters; by default ``learner.default_optimizer()``, Adam with 1e-3 for most.
        scheduler: of the optimizer's learning rate, stepped after every step.
        validation: fixed tasks that choose the best weights.
        every: steps between validations and checkpoints.
        patience: validations without improvement before training stops.
        out: folder for ``metrics.jsonl``, ``last.safetensors`` and ``best.safetensors``.
        resume: go on from what ``out`` holds.
        chunk_size: how many tasks go through a step together; ``"auto"`` measures, so that a resumed run may round
            differently.
        compiled: compile the step; see ``kshot.meta_gradient``.
        device: where the learner is.
        seed: of randomness inside training steps, such as dropout.
        watch: called after every step; see ``kshot.progress``.
        gradient: adds to ``.grad`` of the learner's parameters and returns the loss of some tasks; by default the
            meta-gradient, by ``chunk_size`` and ``compiled``.

    Raises:
        ValueError: there is no budget or a negative one, ``every`` or ``tasks_per_step`` is below 1, tasks come from no
            TaskSource or have labels that the loss misreads, ``out`` holds a run and ``resume`` is not set, or the run had a
            scheduler and ``scheduler`` is None.
        FloatingPointError: the loss or its gradient is not finite; the message names step, task and layer.
        TypeError: the scheduler waits for a score, as ``ReduceLROnPlateau`` does.
    """
    check_budget("train", steps, minutes)
    if every < 1 or tasks_per_step < 1:
        raise ValueError(f"every and tasks_per_step must be at least 1; found {every} and {tasks_per_step}.")
    check_source(tasks, learner)
    if validation is not None:
        check_source(validation, learner)
    if isinstance(scheduler, ReduceLROnPlateau):
        raise TypeError("a scheduler is stepped after every step, without the score that ReduceLROnPlateau needs.")
    optimizer = learner.default_optimizer() if optimizer is None else optimizer
    gradient = MetaGradient(learner, chunk_size, compiled) if gradient is None else gradient
    run = _Run(learner, optimizer, scheduler, None if out is None else RunFolder(out, resume))
    if patience is not None and run.stale >= patience:
        run.stale = 0  # the run had ended, and is given more time
    learner.train()
    with interruption() as interrupted, torch.random.fork_rng():
        reason = run.ending(steps, minutes, interrupted, patience)
        while reason is None:
            learner.at_progress(run.progress(steps, minutes))
            loss = run.take_step(tasks, tasks_per_step, gradient, device, seed)
            reason = run.ending(steps, minutes, interrupted)
            # An interruption validates nothing, so that the run goes on as if there had been none.
            due = run.step % every == 0 or reason not in (None, "interrupted")
            result = None
            if due and validation is not None:
                result = evaluate(
                    learner, validation, tasks_per_step, chunk_size if isinstance(chunk_size, int) else None, device
                )
            report = Report(
                step=run.step,
                loss=loss,
                seconds=run.seconds,
                progress=run.progress(steps, minutes),
                tasks=run.step * tasks_per_step,
                validation=result,
                improved=result is not None and run.improves(result),
            )
            run.record(report, due)
            if watch is not None:
                watch(report)
            # A clock that ran out since must not end the run without the validation of its last step.
            reason = reason or run.ending(steps, minutes if due else None, interrupted, patience)
    trained = run.finish(reason)
    learner.at_progress(1.0)  # whoever goes on with it has the loss and the gradient of the end of training
    return trained


class _Run(Position):
    """What changes while training: the learner, its optimizer, and the position in the run."""

    def __init__(
        self, learner: Learner, optimizer: Optimizer, scheduler: LRScheduler | None, folder: RunFolder | None
    ) -> None:
        super().__init__()
        self.learner, self.optimizer, self.scheduler, self.folder = learner, optimizer, scheduler, folder
        self.best_weights: dict[str, Tensor] | None = None
        if folder is not None and (content := folder.load_last()) is not None:
            self._restore(content)

    def take_step(
        self,
        tasks: TaskSource,
        tasks_per_step: int,
        gradient: Callable[[Tasks], Tensor],
        device: torch.device | str | None,
        seed: int,
    ) -> float:
        torch.manual_seed((seed << 32) + self.step)
        batch = tasks.draw(np.arange(self.step * tasks_per_step, (self.step + 1) * tasks_per_step), device)
        self.optimizer.zero_grad()
        before = [buffer.clone() for buffer in self.learner.buffers()]  # running averages move with every pass
        value = gradient(batch).item()
        if not is_finite(self.learner, value):
            message = self._divergence(batch, value)
            for buffer, value_before in zip(self.learner.buffers(), before, strict=True):
                buffer.copy_(value_before)
            if self.folder is not None and not self.folder.last.exists():
                self.folder.save_last(self._content())  # of the step before, where nothing else is kept
            raise FloatingPointError(message)
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        self.step += 1
        return value

    def _divergence(self, tasks: Tasks, value: float) -> str:
        """Say where the step went wrong, and which weights there are to go on from."""
        # Before the numbers run out the weights are spoiled for some steps already: no checkpoint is replaced by them.
        files = () if self.folder is None else (self.folder.best, self.folder.last)
        saved = " and ".join(str(file) for file in files if file.exists())
        kept = f"; of earlier steps are {saved}" if saved else ""
        what = ", with a gradient that is not finite" if math.isfinite(value) else ""
        return (
            f"the meta-loss became {value} at step {self.step + 1}{what}: {culprit(self.learner, tasks)}. The learner "
            f"has the weights of the step before, perhaps spoiled already{kept}. Lower the learning rates, inner and outer, "
            "or clip the gradient."
        )

    def improves(self, result: Evaluation) -> bool:
        sign = 1 if result.higher_is_better else -1
        if math.isnan(result.mean) or (self.best is not None and sign * result.mean <= sign * self.best):
            self.stale += 1
            return False
        self.best, self.stale = result.mean, 0
        self.best_weights = copy.deepcopy(self.learner.state_dict())
        return True

    def record(self, report: Report, due: bool) -> None:
        if self.folder is None or not due:
            return
        result = report.validation
        scores = {} if result is None else {f"val_{result.metric}": result.mean, "val_ci95": result.ci95}
        line = {"step": report.step, "seconds": report.seconds, "loss": report.loss, "tasks": report.tasks, **scores}
        self.folder.append_metrics(line)
        if report.improved:
            self.folder.save_best({"learner": self.learner.state_dict(), "step": self.step, "score": self.best})
        self.folder.save_last(self._content())

    def finish(self, reason: Reason) -> Trained:
        if self.folder is not None:
            self.folder.save_last(self._content())
            if self.best_weights is None:  # without validation the last weights are the best that is known
                self.folder.save_best({"learner": self.learner.state_dict(), "step": self.step, "score": None})
        if self.best_weights is not None:
            self.learner.load_state_dict(self.best_weights)
        return Trained(reason, self.step, self.seconds, self.best)

    def _content(self) -> dict[str, object]:
        return {
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "best_weights": self.best_weights,
            "position": {"step": self.step, "seconds": self.seconds, "best": self.best, "stale": self.stale},
        }

    def _restore(self, content: Any) -> None:
        if self.scheduler is None and content["scheduler"] is not None:
            raise ValueError(
                f"the run to resume had a scheduler at step {content['position']['step']}, and none is passed: its learning "
                f"rate would stand still. Pass scheduler= as before, or start a new run from the weights of this one."
            )
        self.learner.load_state_dict(content["learner"])
        self.optimizer.load_state_dict(content["optimizer"])
        position = content["position"]
        if self.scheduler is not None:
            # A run that had none until now is where one that always had it would be.
            self.scheduler.load_state_dict(content["scheduler"] or {"last_epoch": position["step"]})
        self.step, self.earlier = position["step"], position["seconds"]
        self.best, self.stale, self.best_weights = position["best"], position["stale"], content["best_weights"]
