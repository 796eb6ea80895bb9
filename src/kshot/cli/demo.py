"""``kshot demo``: from nothing to a reader of unknown alphabets, in about a minute and a half."""

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from kshot.allocator import keep_freed_memory
from kshot.batching import unstack
from kshot.cli.draw import draw_task
from kshot.cli.options import Demo
from kshot.cli.results import can_report
from kshot.core import Episode
from kshot.evaluation import Evaluation, evaluate
from kshot.learners.gradient import MAML
from kshot.learners.metric import Prototypical
from kshot.losses import mean_squared_error
from kshot.nets.conv import Conv4
from kshot.nets.mlp import MLP
from kshot.progress import show_progress
from kshot.tasks.cache import DataUnavailable
from kshot.tasks.episodes import Episodes
from kshot.tasks.glyphs import glyphs
from kshot.tasks.labelled import Splits
from kshot.tasks.omniglot import omniglot
from kshot.tasks.sinusoid import Sinusoids
from kshot.training import train

__all__ = ["run_demo"]


def run_demo(command: Demo) -> None:
    """Train and judge a reader of characters and a regressor of waves, and write a report."""
    if command.out.exists() and not command.out.is_dir():  # told before the training that it would be for nothing
        raise ValueError(f"{command.out} is no folder; name one for the report with --out.")
    keep_freed_memory()
    torch.manual_seed(0)
    console = Console()
    splits = _characters(console)
    reader = _train_reader(splits, command.seconds, console)
    results = _judge(reader, splits, command.tasks, console)
    task = next(Episodes(splits.test, 5, 1, 5, seed=7, within_groups=True, length=1).batches(1))
    assert isinstance(task, Episode)
    with torch.no_grad():
        answers = reader.eval().predictions(task)
    console.print(draw_task(unstack(task)[0], answers[0]))
    waves = _train_waves(command.seconds / 6, command.tasks, console)
    if can_report(console):
        from kshot.cli.report import demo_report

        report = demo_report(command.out, results, (unstack(task)[0], answers[0]), waves)
        console.print(f"report: {report}", highlight=False, soft_wrap=True)


def _characters(console: Console) -> Splits:
    try:
        # Alphabets of training and test differ in this protocol; its pictures, made small, and turned ones as classes.
        splits = omniglot("lake", size=28)
        console.print("Data: Omniglot, handwritten characters of 50 alphabets; 20 alphabets are kept for the test.")
    except DataUnavailable:
        splits = Splits(glyphs("train"), glyphs("val"), glyphs("test"))
        console.print("Data: glyphs, invented characters drawn on the fly; 10 alphabets are kept for the test.")
        console.print("Omniglot is not on this machine and could not be fetched: `kshot data omniglot` says why.")
    return Splits(splits.train.with_rotations("classes"), splits.val, splits.test)


def _train_reader(splits: Splits, seconds: float, console: Console) -> Prototypical:
    reader = Prototypical(Conv4())
    optimizer = torch.optim.Adam(reader.parameters(), 2e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 200, 0.5)
    with show_progress("learning to learn characters", console) as watch:
        train(
            reader,
            Episodes(splits.train, 60, 1, 5),
            minutes=seconds / 60,
            tasks_per_step=1,
            optimizer=optimizer,
            scheduler=scheduler,
            validation=Episodes(splits.val, 20, 1, 5, length=20),
            every=100,
            watch=watch,
        )
    return reader


def _judge(reader: Prototypical, splits: Splits, count: int, console: Console) -> dict[str, Evaluation]:
    pixels = Prototypical(nn.Flatten())
    table = Table(
        "unseen alphabets, one example each",
        "raw pixels",
        "Prototypical",
        title=f"accuracy, 95 % interval, {count} tasks",
    )
    results = {}
    for ways in (5, 20):
        tasks = Episodes(splits.test, ways, 1, 5, seed=2, length=count)
        for name, learner in (("raw pixels", pixels), ("Prototypical", reader)):
            results[f"{name}, {ways}-way 1-shot"] = evaluate(learner, tasks)
        row = [results[f"{name}, {ways}-way 1-shot"].short() for name in ("raw pixels", "Prototypical")]
        table.add_row(f"{ways}-way 1-shot (chance {100 / ways:.0f} %)", *row)
    console.print(table)
    return results


def _train_waves(seconds: float, count: int, console: Console) -> MAML:
    learner = MAML(MLP(1, 40, 40, 1), lr=0.01, differentiate="reverse", loss=mean_squared_error)
    tasks = Sinusoids(shots=10, seed=1, length=200)
    with show_progress("learning to learn waves", console) as watch:
        train(
            learner,
            Sinusoids(shots=10),
            minutes=seconds / 60,
            tasks_per_step=25,
            validation=tasks,
            every=500,
            watch=watch,
        )
    test = Sinusoids(shots=5, seed=2, length=count)
    before, after = MAML(learner.model, learner.lr, steps=0, loss=mean_squared_error), learner
    console.print(
        f"Sine waves from 5 points, MSE: {evaluate(before, test).short()} before, "
        f"{evaluate(after, test).short()} after one gradient step of MAML",
        highlight=False,
        soft_wrap=True,
    )
    return learner
