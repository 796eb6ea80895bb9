"""``report.html``: of a run, after training and after every evaluation, and of the demo."""

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from kshot.batching import unstack
from kshot.cli.build import load_best
from kshot.cli.build_tasks import fixed_tasks
from kshot.cli.learner_options import LearnerOptions
from kshot.cli.results import present_results
from kshot.core import Batch, Episode, Learner
from kshot.evaluation import Evaluation
from kshot.learners.gradient import MAML
from kshot.report import Panel, Section, drawn_episode, learning_curve, results_table, wave_figure, write_report
from kshot.run_folder import read_lines
from kshot.tasks.sinusoid import Sinusoids
from kshot.tasks.source import TaskSource

__all__ = ["demo_report", "report_run", "wave_panels"]


def report_run(folder: Path, options: LearnerOptions, console: Console) -> None:
    """Write the report of a run: a task with the learner's answers, the learning curve, and the results so far."""
    learner = load_best(folder, options)
    tasks = fixed_tasks(options, "test", 1)
    sections = _answers(learner, tasks)
    if results := {_name(result): result for result in present_results(folder)}:
        sections.append(Section("How good it is on unseen classes", results_table(results)))
    if metrics := read_lines(folder / "metrics.jsonl"):  # a run may end before its first validation
        sections.append(Section("How it learned", learning_curve(metrics)))
    path = folder / "report.html"
    write_report(
        path, f"{type(learner).__name__} on {options.data}", sections, f"Run {folder.name}, seed {options.seed}"
    )
    console.print(f"report: {path}", highlight=False, soft_wrap=True)


def demo_report(folder: Path, results: Mapping[str, Evaluation], answered: tuple[Episode, Tensor], waves: MAML) -> Path:
    """Write the report of the demo and return where it is."""
    sections = [
        Section("Characters it had never seen", drawn_episode(*answered, noun="characters")),
        Section("How often it is right", results_table(results)),
        Section("One gradient step to a new wave", wave_figure(wave_panels({"MAML": waves}, (0, 1)))),
    ]
    path = folder / "report.html"
    write_report(path, "A learner that learns from one example", sections, "kshot demo")
    return path


def wave_panels(learners: Mapping[str, MAML], steps: tuple[int, ...], shots: int = 5, seed: int = 5) -> list[Panel]:
    """Predict one wave after some numbers of gradient steps, a panel for each learner."""
    tasks = Sinusoids(shots, seed=seed)
    support, _ = unstack(tasks.sample(np.arange(1)))[0]
    amplitude, phase = (value[0, 0, 0] for value in tasks.waves(np.arange(1)))
    x = torch.linspace(-5, 5, 200)
    truth = amplitude * (x - phase).sin()
    whole = Episode(support, Batch(x[:, None], truth[:, None]))
    return [
        Panel(name, x, truth, support, {_in_words(count): _after(learner, count, whole) for count in steps})
        for name, learner in learners.items()
    ]


@torch.no_grad()
def _after(learner: MAML, steps: int, task: Episode) -> Tensor:
    """Return what a learner answers after a number of steps, by the step sizes, the rule and the encoder that it has."""
    stepped = copy.deepcopy(learner).eval()
    stepped.test_steps = steps
    answers: Tensor = stepped.predictions([task])[0][:, 0]
    return answers


def _in_words(steps: int) -> str:
    return "before" if steps == 0 else f"after {steps} step{'s' if steps > 1 else ''}"


def _answers(learner: Learner, tasks: TaskSource) -> list[Section]:
    if tasks.string_labels:
        return []  # an answer is a word, not one of the classes that a picture could be put to
    task = next(iter(tasks.batches(1)))
    assert isinstance(task, Episode)
    if isinstance(learner, MAML) and isinstance(tasks, Sinusoids):
        steps = tuple(sorted({0, 1, learner.test_steps, 10}))
        return [Section("A wave it had never seen", wave_figure(wave_panels({"MAML": learner}, steps, tasks.shots)))]
    with torch.no_grad():
        predictions = learner.eval().predictions(task)
    return [Section("Classes it had never seen", drawn_episode(unstack(task)[0], predictions[0]))]


def _name(result: Evaluation) -> str:
    """Return what tells a result from the others of its run."""
    steps, presentation = result.stamp.get("inner steps"), result.stamp.get("presentation")
    told = f", {steps} inner steps" if steps else f", presentation {presentation}" if presentation else ""
    return result.stamp["tasks"] + told
