"""``results.jsonl`` of a run: every evaluation, with the step of the weights that were judged."""

from pathlib import Path

from kshot.checkpoint import load_checkpoint
from kshot.evaluation import Evaluation
from kshot.run_folder import append_line, read_lines

__all__ = ["best_step", "present_results", "save_result"]


def best_step(folder: Path) -> int:
    """Return the step of the best weights of a run."""
    step: int = load_checkpoint(folder / "best.safetensors")["step"]
    return step


def save_result(folder: Path, result: Evaluation, step: int) -> None:
    """Keep an evaluation, every score of it, of the weights of a step."""
    append_line(folder / "results.jsonl", {**result.to_record(), "step": step})


def present_results(folder: Path) -> list[Evaluation]:
    """Return the evaluations of the weights that are the best now; a run that went on may hold some of older ones."""
    lines, step = read_lines(folder / "results.jsonl"), best_step(folder)
    return [Evaluation.from_record(line) for line in lines if line.pop("step", None) == step]
