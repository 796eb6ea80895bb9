"""The folder of a training run: its metrics, its last state and its best learner."""

import json
from pathlib import Path
from typing import Any

from kshot.checkpoint import load_checkpoint, save_checkpoint, write_atomically

__all__ = ["RunFolder", "append_line", "read_lines"]


class RunFolder:
    """Files of one run: ``metrics.jsonl``, ``last.safetensors`` (to resume) and ``best.safetensors`` (to use).

    Args:
        path: the folder; made if missing.
        resume: whether a run that it holds may be continued.

    Raises:
        ValueError: it holds a run or a fitted model and ``resume`` is False, or no run and ``resume`` is True.
    """

    def __init__(self, path: str | Path, resume: bool = False) -> None:
        self.path = Path(path)
        self.last, self.best = self.path / "last.safetensors", self.path / "best.safetensors"
        self.metrics = self.path / "metrics.jsonl"
        files = (self.last, self.best, self.metrics, self.path / "model.safetensors")
        held = [file.name for file in files if file.exists()]
        if held and not resume:
            raise ValueError(
                f"{self.path} already holds a run or a model: found {', '.join(held)}. Resume the run, or choose another "
                "folder: nothing is overwritten."
            )
        if resume and not self.last.exists():
            raise ValueError(f"{self.path} holds no run to resume: {self.last.name} is missing.")
        self.path.mkdir(parents=True, exist_ok=True)

    def load_last(self) -> Any | None:
        """Return the state to resume from, None at the start of a run; call it where training begins, and only there."""
        for part in self.path.glob("*.part"):  # of a process that was killed while saving
            part.unlink()
        if not self.last.exists():
            return None
        content = load_checkpoint(self.last)
        self._drop_metrics_after(content["position"]["step"])
        return content

    def save_last(self, content: Any) -> None:
        """Save the state to resume from."""
        save_checkpoint(self.last, content)

    def save_best(self, content: Any) -> None:
        """Save the best learner so far."""
        save_checkpoint(self.best, content)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _drop_metrics_after(self, step: int) -> None:
        # A killed process may have written metrics of steps that its last checkpoint has not seen.
        kept = [json.dumps(line) for line in read_lines(self.metrics) if line["step"] <= step]
        write_atomically(self.metrics, "".join(line + "\n" for line in kept).encode())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of JSON lines, none where there is no file; a last line cut short is left out.

    It only reads, so that a run may be looked at while it is training.
    """
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Add a line to a file of JSON lines, in place of a last one cut short by a killed process."""
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(line).encode() + b"\n")
