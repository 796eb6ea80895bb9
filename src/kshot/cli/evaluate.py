"""``kshot eval`` and ``kshot compare``."""

from pathlib import Path

from rich.console import Console

from kshot.allocator import keep_freed_memory
from kshot.cli.build import load_best
from kshot.cli.build_tasks import fixed_tasks
from kshot.cli.learner_options import LearnerOptions, RecurrentOptions
from kshot.cli.options import Compare, Eval
from kshot.cli.results import best_step, can_report, save_result
from kshot.cli.run_config import load_config
from kshot.core import Learner
from kshot.evaluation import Evaluation, compare, evaluate
from kshot.presentations import evaluate_presentations
from kshot.tasks.source import TaskSource

__all__ = ["run_compare", "run_eval"]


def run_eval(command: Eval) -> None:
    """Evaluate the best learner of a run on test tasks, and add the result to its report."""
    console = Console(markup=False)
    options = load_config(command.run)
    step = best_step(command.run)  # before the weights are read: a run that is training may save better ones meanwhile
    count = 1000 if command.tasks is None else command.tasks
    learner, tasks = _prepared(
        command.run, options, count, command.ways, command.shots, command.queries, command.inner_steps
    )
    result = _judged(command.run, learner, tasks, console)
    console.print(str(result), highlight=False, soft_wrap=True)
    save_result(command.run, result, step)
    if isinstance(options, RecurrentOptions):
        shots = command.shots if command.shots is not None else options.shots or 1
        for n, streamed in _presentations(learner, tasks, shots).items():
            told = f"{streamed.metric} {streamed.short()} (95 % interval, {len(streamed.scores):,} tasks)"
            console.print(f"presentation {n}: {told}", highlight=False)
            save_result(command.run, streamed, step)
    if can_report(console):
        from kshot.cli.report import report_run

        report_run(command.run, options, console)


def _presentations(learner: Learner, tasks: TaskSource, shots: int) -> dict[int, Evaluation]:
    """Return how good the learner is the first time a class comes, the second, and so on."""
    told = [n for n in (1, 2, 3, 5, 10) if n <= shots]
    return evaluate_presentations(learner, tasks, told) if told else {}


def run_compare(command: Compare) -> None:
    """Evaluate runs on the same test tasks, and compare each with the first, task by task."""
    if len(command.runs) < 2:
        raise ValueError(f"compare needs two or more run folders; found {len(command.runs)}.")
    console = Console(markup=False)
    first = load_config(command.runs[0])
    ways = first.ways if command.ways is None and first.data != "sinusoid" else command.ways
    shots = first.shots if command.shots is None else command.shots
    queries = first.queries if command.queries is None else command.queries
    results = []
    for run in command.runs:
        told = load_config(run)
        of_run = command.ways if told.data == "sinusoid" else ways  # sine waves have none, and refuse what was said
        prepared = _prepared(run, told, command.tasks, of_run, shots, queries)
        results.append(_judged(run, *prepared, console))
    for run, result in zip(command.runs, results, strict=True):
        console.print(f"{run}: {result}", highlight=False, soft_wrap=True)
    for run, result in zip(command.runs[1:], results[1:], strict=True):
        console.print(f"{run} - {command.runs[0]}: {compare(result, results[0])}", highlight=False, soft_wrap=True)


def _prepared(
    run: Path,
    options: LearnerOptions,
    tasks: int,
    ways: int | None,
    shots: int | None,
    queries: int | None,
    inner_steps: int | None = None,
) -> tuple[Learner, TaskSource]:
    """Return the best learner of a run, and the test tasks that it is to be judged on."""
    if options.data == "sinusoid" and ways is not None:
        raise ValueError(f"--ways {ways}: sine waves are regression, which has no classes. Leave it out.")
    keep_freed_memory()
    learner = load_best(run, options, inner_steps)
    strings = isinstance(options, RecurrentOptions) and options.labels == "strings"
    if learner.fixed_ways and not strings and ways not in (None, options.ways):
        raise ValueError(
            f"{run} was trained for {options.ways} ways, which are built into its net; found --ways {ways}."
        )
    return learner, fixed_tasks(options, "test", tasks, ways, shots, queries)


def _judged(run: Path, learner: Learner, tasks: TaskSource, console: Console) -> Evaluation:
    with console.status(f"{run}: {len(tasks):,} test tasks"):
        return evaluate(learner, tasks)
