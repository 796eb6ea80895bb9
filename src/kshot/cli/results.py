"""What is told of a run: ``results.jsonl``, each evaluation with the step of its weights, and perhaps a report."""

from pathlib import Path

from rich.console import Console

from kshot.checkpoint import load_checkpoint
from kshot.evaluation import Evaluation
from kshot.run_folder import append_line, read_lines

__all__ = ["best_step", "can_report", "present_results", "save_result"]


def best_step(folder: Path) -> int:
    """Return the step of the best weights of a run."""
    step: int = load_checkpoint(folder / "best.safetensors")["step"]
    return step


def can_report(console: Console) -> bool:
    """Return whether reports can be drawn; if not, say what is missing. Ask before ``kshot.cli.report`` is imported."""
    try:
        import kshot.report  # noqa: F401
    except ImportError:
        console.print("no report: pip install 'kshot[report]'", markup=False, highlight=False)
        return False
    return True


def save_result(folder: Path, result: Evaluation, step: int) -> None:
    """Keep an evaluation, every score of it, of the weights of a step."""
    append_line(folder / "results.jsonl", {**result.to_record(), "step": step})


def present_results(folder: Path) -> list[Evaluation]:
    """Return the evaluations of the weights that are the best now; a run that went on may hold some of older ones."""
    lines, step = read_lines(folder / "results.jsonl"), best_step(folder)
    return [Evaluation.from_record(line) for line in lines if line.pop("step", None) == step]
