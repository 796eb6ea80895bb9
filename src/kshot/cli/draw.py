"""A task drawn in a terminal: what the learner was shown, and what it answered."""

import torch
from rich.text import Text
from torch import Tensor

from kshot.core import Episode

__all__ = ["draw_task"]

_DOTS = torch.tensor([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # of one braille character, 4 x 2


def braille(picture: Tensor, threshold: float = 0.4) -> list[str]:
    """Draw a picture (height, width) of values in 0..1 as lines of braille characters, 2 x 4 pixels each.

    >>> braille(torch.eye(4))
    ['⠑⢄']
    """
    ink = picture > threshold
    ink = torch.nn.functional.pad(ink, (0, -ink.shape[1] % 2, 0, -ink.shape[0] % 4))
    cells = ink.reshape(len(ink) // 4, 4, -1, 2).movedim(2, 1)  # (rows, columns, 4, 2)
    codes = 0x2800 + (cells * _DOTS).sum((2, 3))
    return ["".join(map(chr, row)) for row in codes.tolist()]


def draw_task(task: Episode, predictions: Tensor) -> Text:
    """Draw the support example of each class, and below it one query picture that the learner put into the class."""
    examples = [_first(task.support.x, task.support.y.argmax(1) == way) for way in range(task.support.y.shape[1])]
    answers = [_first(task.query.x, predictions.argmax(1) == way) for way in range(predictions.shape[1])]
    right = [_first(task.query.y.argmax(1), predictions.argmax(1) == way) == way for way in range(len(answers))]
    text = Text("shown one example of each:\n", style="bold")
    text.append(_row(examples), style="cyan not bold")
    text.append("and sorted new drawings by other hands:\n", style="bold")
    text.append(_row(answers), style="green not bold")
    marks = [
        "nothing" if answer is None else ("✓" if good else "✗") for answer, good in zip(answers, right, strict=True)
    ]
    text.append("".join(mark.center(15) for mark in marks) + "\n", style="bold")
    return text


def _first(x: Tensor, chosen: Tensor) -> Tensor | None:
    return x[chosen][0] if chosen.any() else None


def _row(pictures: list[Tensor | None]) -> str:
    drawn = [braille(torch.zeros(28, 28) if picture is None else picture[0]) for picture in pictures]
    return "".join(" ".join(lines) + "\n" for lines in zip(*drawn, strict=True))
