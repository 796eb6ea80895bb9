"""``kshot train`` and ``kshot resume``."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kshot.allocator import keep_freed_memory
from kshot.cli.build import build_learner
from kshot.cli.build_optimizer import build_optimizer
from kshot.cli.build_tasks import fixed_tasks, picture_of, training_tasks
from kshot.cli.encoder_from import copy_encoder, freeze_encoder
from kshot.cli.learner_options import ClassifierOptions, LearnerOptions, ReptileOptions
from kshot.cli.options import Resume
from kshot.cli.results import can_report
from kshot.cli.run_config import learner_name, load_config, save_config
from kshot.core import Learner
from kshot.meta_gradient import MetaGradient
from kshot.progress import show_progress
from kshot.run_folder import RunFolder
from kshot.tasks.minibatches import Minibatches
from kshot.tasks.source import TaskSource
from kshot.training import train

__all__ = ["resume", "start"]


def start(options: LearnerOptions) -> None:
    """Start a run in a new folder."""
    folder = options.out or Path("runs") / f"{learner_name(options)}-{Path(options.data).name}"
    if options.minutes is None and options.steps is None:
        options = replace(options, minutes=3.0)
    tasks = training_tasks(options)
    if isinstance(options, ClassifierOptions) and isinstance(tasks, Minibatches):
        options = replace(options, classes=tasks.ways)
    prepared = _prepare(options, tasks)  # before the folder is made: a mistake in the options leaves nothing behind
    if options.encoder_from is not None:
        copy_encoder(prepared.learner, options, Path(options.encoder_from))
    RunFolder(folder)
    save_config(folder, options, picture_of(options))
    _run(folder, options, prepared, resuming=False)


def resume(command: Resume) -> None:
    """Go on with a run, with a new budget if one is given."""
    options = load_config(command.run)
    if command.minutes is not None or command.steps is not None:
        if isinstance(options, ReptileOptions) and options.steps is not None and command.steps is None:
            raise ValueError(
                f"Reptile's step size falls to zero over the run's {options.steps} steps; say --steps too."
            )
        options = replace(options, minutes=command.minutes, steps=command.steps)
    prepared = _prepare(options, training_tasks(options))  # before the new budget is saved, for the same reason
    save_config(command.run, options, picture_of(options))
    _run(command.run, options, prepared, resuming=True)


class _Prepared(NamedTuple):
    """What the options of a run come to."""

    tasks: TaskSource
    validation: TaskSource | None
    learner: Learner
    gradient: MetaGradient
    optimizer: Optimizer
    scheduler: LRScheduler | None


def _prepare(options: LearnerOptions, tasks: TaskSource) -> _Prepared:
    keep_freed_memory()
    learner = build_learner(options)
    if options.freeze_encoder:
        freeze_encoder(learner, options)
    validation = None if options.with_val else fixed_tasks(options, "val", options.val_tasks)
    gradient = MetaGradient(learner, options.chunk, options.compile, options.side_by_side)
    return _Prepared(tasks, validation, learner, gradient, *build_optimizer(options, learner))


def _run(folder: Path, options: LearnerOptions, prepared: _Prepared, resuming: bool) -> None:
    console = Console(markup=False)  # or brackets in a path would be taken for a style
    tasks, validation, learner, gradient, optimizer, scheduler = prepared
    console.print(f"{type(learner).__name__} on {_in_words(dict(tasks.stamp))}", highlight=False, soft_wrap=True)
    with show_progress("training", console) as watch:
        trained = train(
            learner,
            tasks,
            steps=options.steps,
            minutes=options.minutes,
            tasks_per_step=options.tasks_per_step,
            chunk_size=options.chunk,
            gradient=gradient,
            optimizer=optimizer,
            scheduler=scheduler,
            validation=validation,
            every=options.every,
            patience=options.patience,
            out=folder,
            resume=resuming,
            seed=options.seed,
            watch=watch,
        )
    console.print(f"{trained.steps:,} steps in {trained.seconds:,.0f} s, ended by: {trained.reason}", highlight=False)
    if trained.reason == "interrupted":
        console.print(f"Saved. Go on with: kshot resume {folder}", highlight=False, soft_wrap=True)
        return
    if can_report(console):
        from kshot.cli.report import report_run

        report_run(folder, options, console)
    console.print(f"Judge it on unseen classes with: kshot eval {folder}", highlight=False, soft_wrap=True)


def _in_words(stamp: dict[str, str]) -> str:
    return "; ".join(f"{key}: {value}" for key, value in stamp.items())
