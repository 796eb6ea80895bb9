"""A task drawn as people see it: the examples that were shown, and what the learner took for the same."""

import base64
import io
from collections.abc import Sequence
from html import escape
from string import ascii_uppercase
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from kshot.core import Batch, Episode
from kshot.validation import check_task

__all__ = ["drawn_episode"]

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_UNLABELLED = -1
_MOST_SHOWN = 5  # support pictures of a class
_SMALL = 48  # pixels; pictures up to this side are enlarged on the page, and shall keep their edges


def drawn_episode(
    task: Episode, predictions: Tensor, classes: Sequence[str] | None = None, noun: str = "classes", most: int = 20
) -> str:
    """Return one task of pictures as HTML: a row for each class, and in it the queries that were answered with it.

    Args:
        task: one task of classes that were not in training. x are pictures ``(n, channels, height, width)`` of values 0
            to 1; those with one channel are taken for ink on paper and follow the colours of the page.
        predictions: ``(queries, ways)`` logits.
        classes: a name for each class.
        noun: what the classes are called in the sentence above the rows.
        most: queries shown in a row; wrong answers are the last to be left out.

    Raises:
        ValueError: shapes do not fit, or ``classes`` are not as many as the ways.

    >>> from kshot.core import one_hot
    >>> shown = Batch(torch.rand(2, 1, 8, 8), one_hot([0, 1], 2))
    >>> html = drawn_episode(Episode(shown, shown), torch.tensor([[2.0, 1.0], [3.0, 1.0]]))
    >>> "the learner answered <b>1 of 2</b> correctly" in html
    True
    """
    _check(task, predictions, classes)
    labels = _labels(predictions.shape[1], classes)
    support, query = _pictures(task)
    shown = [
        [picture for picture, y in zip(support, _classes(task.support), strict=True) if y == k]
        for k in range(len(labels))
    ]
    answered = zip(query, predictions.argmax(-1).tolist(), _classes(task.query), strict=True)
    answers = [_Answer(*answer) for answer in answered if answer[2] != _UNLABELLED]
    rows = "\n".join(
        _row(label, shown[k], [answer for answer in answers if answer.given == k], labels, most)
        for k, label in enumerate(labels)
    )
    return (
        f'<div class="episode">\n{_sentence([len(pictures) for pictures in shown], answers, noun)}\n<table>\n'
        '<thead><tr><th scope="col">Shown</th><th scope="col">What the learner took for the same</th></tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table>\n"
        '<p class="note"><span class="right">✓ right</span> <span class="wrong">✗ wrong</span>, with the row it '
        "belongs to</p>\n</div>"
    )


class _Label(NamedTuple):
    key: str  # short enough to stand beneath a picture
    name: str

    def __str__(self) -> str:
        return escape(f"{self.key} ({self.name})" if self.name else self.key)


class _Picture(NamedTuple):
    kind: str
    png: bytes

    def html(self, alt: str) -> str:
        data = base64.b64encode(self.png).decode()
        return f'<span class="picture"><img class="{self.kind}" alt="{alt}" src="data:image/png;base64,{data}"></span>'


class _Answer(NamedTuple):
    picture: _Picture
    given: int
    true: int


def _check(task: Episode, predictions: Tensor, classes: Sequence[str] | None) -> None:
    check_task(task, axes=("n",))
    for name, (x, _) in zip(task._fields, task, strict=True):
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] not in (1, 3):
            found = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"{name}.x must be pictures (n, channels, height, width) of 1 or 3 channels; found {found}."
            )
    if predictions.shape != task.query.y.shape:
        expected = tuple(task.query.y.shape)
        raise ValueError(f"predictions must be logits (queries, ways) {expected}; found {tuple(predictions.shape)}.")
    if classes is not None and len(classes) != predictions.shape[1]:
        raise ValueError(f"classes must name each of {predictions.shape[1]} classes; found {len(classes)} names.")


def _labels(ways: int, classes: Sequence[str] | None) -> list[_Label]:
    keys = list(ascii_uppercase) if ways <= len(ascii_uppercase) else [str(k) for k in range(1, ways + 1)]
    return [_Label(keys[k], classes[k] if classes else "") for k in range(ways)]


def _sentence(shown: Sequence[int], answers: Sequence[_Answer], noun: str) -> str:
    examples = "a few examples"
    if len(set(shown)) == 1:
        number = _NUMBERS[shown[0]] if shown[0] < len(_NUMBERS) else str(shown[0])
        examples = f"{number} example{'' if shown[0] == 1 else 's'}"
    right = sum(answer.given == answer.true for answer in answers)
    return (
        f'<p class="lead">Shown {examples} of each of {len(shown)} {escape(noun)} it had never seen, '
        f"the learner answered <b>{right:,} of {len(answers):,}</b> correctly.</p>"
    )


def _row(
    label: _Label, shown: Sequence[_Picture], answers: Sequence[_Answer], labels: Sequence[_Label], most: int
) -> str:
    name = f"<small>{escape(label.name).replace('/', '/<wbr>')}</small>" if label.name else ""
    several = " several" if len(shown) > 1 else ""
    examples = "".join(picture.html(f"example of {label}") for picture in shown[:_MOST_SHOWN])
    more = f"<small>and {len(shown) - _MOST_SHOWN} more</small>" if len(shown) > _MOST_SHOWN else ""
    head = f'<span class="key">{label.key}</span><div class="tiles{several}">{examples}</div>{name}{more}'
    return f'<tr><th scope="row">{head}</th>\n<td>{_tiles(answers, labels, most) or "<small>nothing</small>"}</td></tr>'


def _tiles(answers: Sequence[_Answer], labels: Sequence[_Label], most: int) -> str:
    right = [answer for answer in answers if answer.given == answer.true]
    wrong = [answer for answer in answers if answer.given != answer.true]
    shown = right[: max(0, most - len(wrong))] + wrong[:most]
    tiles = "\n".join(_tile(answer, labels) for answer in shown)
    hidden = len(answers) - len(shown)
    verdict = f"{len(wrong) - most} of them wrong" if len(wrong) > most else "all of them right"
    more = f"\n<small>and {hidden} more, {verdict}</small>" if hidden else ""
    return f'<div class="tiles">\n{tiles}{more}\n</div>' if shown else more


def _tile(answer: _Answer, labels: Sequence[_Label]) -> str:
    given, true = labels[answer.given], labels[answer.true]
    if answer.given == answer.true:
        kind, mark, text = "right", "✓", f"right: {true}"
    else:
        kind, mark, text = "wrong", f"✗ {true.key}", f"wrong: taken for {given}, but it is {true}"
    image = answer.picture.html(text)
    return f'<span class="tile {kind}" title="{text}">{image}<span aria-hidden="true">{mark}</span></span>'


def _classes(batch: Batch) -> list[int]:
    classes: list[int] = batch.y.argmax(-1).masked_fill(batch.y.sum(-1) == 0, _UNLABELLED).tolist()
    return classes


def _pictures(task: Episode) -> tuple[list[_Picture], list[_Picture]]:
    """Draw every picture of a task, ink dark on light paper."""
    values = torch.cat([batch.x.detach().cpu().float().clamp(0, 1) for batch in task])
    is_ink = values.shape[1] == 1
    if is_ink and values.mean() < 0.5:  # most of a page is paper, so this one is dark
        values = 1 - values
    kind = ("ink" if is_ink else "photo") + (" small" if values.shape[-1] <= _SMALL else "")
    pixels = values.mul(255).round().byte().movedim(1, -1).numpy()
    drawn = [_Picture(kind, _png(Image.fromarray(one[..., 0] if is_ink else one))) for one in pixels]
    return drawn[: len(task.support.y)], drawn[len(task.support.y) :]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return buffer.getvalue()
