"""Handwriting in invented alphabets, drawn on demand: characters to learn from where nothing can be downloaded."""

import math
from functools import cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from kshot.tasks.keys import choose, random_keys, uniform
from kshot.tasks.labelled import LabelledData

__all__ = ["glyphs"]

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

_SPLITS = {"train": range(30), "val": range(30, 35), "test": range(35, 45)}  # alphabets
_HANDS = 20
_RADICALS = 8  # strokes that an alphabet knows
_STROKES = 4  # at most, in a character
_DRAFTS = 80  # characters an alphabet chooses its own from
_PIECES = 20  # of a stroke
_SIDE, _MARGIN = 28, 3  # of the paper, in pixels
_BLUR = 0.8  # of the pen, in pixels
_STOPS = 16  # places in a pixel where the pen can be, along each axis
_SEED = 0
# One stream of random numbers for each question, so that asking one more does not change the answers to the others.
_STYLE, _SHAPE, _CHOICE, _LAYOUT, _HAND, _DRAWING, _STROKE = range(7)


@cache
def glyphs(split: Literal["train", "val", "test"]) -> LabelledData:
    """Draw the characters of one split: 30, 5 or 10 invented alphabets, each written by 20 hands.

    The characters of an alphabet have a style and a few strokes in common. A hand has its own slant, proportions and
    pen, and no two of its drawings are alike. Every machine draws the same bits; a process draws them once.

    Raises:
        ValueError: there is no such split.

    >>> data = glyphs("val")
    >>> data.x.shape[1:], data.x.dtype, data.classes[0], data.groups[0]
    (torch.Size([1, 28, 28]), torch.uint8, 'alphabet30/character00', 'alphabet30')
    """
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {', '.join(_SPLITS)}; found {split!r}.")
    pages = {f"alphabet{number:02}": _alphabet(number) for number in _SPLITS[split]}
    named = [(name, f"{name}/character{i:02}") for name, page in pages.items() for i in range(len(page))]
    groups, classes = zip(*named, strict=True)
    x = torch.from_numpy(np.concatenate(list(pages.values()))).reshape(-1, 1, _SIDE, _SIDE)
    labels = torch.arange(len(classes)).repeat_interleave(_HANDS)
    return LabelledData(x, labels, classes, groups, stamp={"data": "glyphs", "split": split})


def _alphabet(number: int) -> NDArray[np.uint8]:
    """Return the drawings of one alphabet, ``(characters, hands, side, side)``."""
    style = _Style(*_draw(number, _STYLE, 7))
    drafts = _drafts(number, style)
    keep = _distinct(_write(drafts, _still(_DRAFTS))[:, 0], 20 + int(7 * style.rich))
    return _write(drafts.take(keep), _habits(number, len(keep)))


def _draw(number: int, stream: int, *shape: int) -> Floats:
    """Return uniform numbers in [0, 1) for one question about one alphabet."""
    return uniform(_SEED, stream, np.array([number]), math.prod(shape)).reshape(shape)


class _Style(NamedTuple):
    """What the characters of an alphabet have in common, each from 0 to 1."""

    rich: float  # in characters
    dense: float  # in strokes
    round: float
    angular: float
    oblique: float  # off the eight directions of the compass
    soft: float  # at the corners
    loose: float  # strokes that do not touch


class _Strokes(NamedTuple):
    """How the pen moves in each stroke; one of length 0 is not there."""

    length: Floats
    heading: Floats  # its mean direction: 0 is right, pi / 2 is down
    bend: Floats  # how far it turns evenly from end to end
    corner: Floats  # how far it turns at one place
    place: Floats  # where along the stroke that is, 0 .. 1
    soft: Floats  # how much of the stroke that takes

    def take(self, which: Ints) -> "_Strokes":
        return _Strokes(*(field[which] for field in self))


class _Characters(NamedTuple):
    """Strokes ``(characters, strokes)`` and how each joins an earlier one, its parent."""

    strokes: _Strokes
    parent: Ints
    at: Ints  # it touches after this many pieces of the parent
    own: Ints  # and this many of its own
    gap: Floats  # or misses by this much, (characters, strokes, 2)

    def take(self, which: Ints) -> "_Characters":
        return _Characters(
            self.strokes.take(which), self.parent[which], self.at[which], self.own[which], self.gap[which]
        )


def _radicals(number: int, style: _Style) -> _Strokes:
    """Return the strokes that the characters of an alphabet are put together from."""
    u = _draw(number, _SHAPE, 9, _RADICALS)
    side = np.where(u[0] < 0.5, -1, 1)
    return _Strokes(
        length=0.6 + 0.8 * u[1],
        heading=np.floor(4 * u[2]) * np.pi / 4 + 0.9 * style.oblique * (u[3] - 0.5),
        bend=np.where(u[4] < 0.15 + 0.8 * style.round, side * (0.8 + 4.5 * u[5]), 0),
        corner=np.where(u[6] < 0.15 + 0.6 * style.angular, -side * (0.9 + 1.4 * u[7]), 0),
        place=0.25 + 0.5 * u[8],
        soft=np.full(_RADICALS, 0.04 + 0.3 * style.soft),
    )


def _drafts(number: int, style: _Style) -> _Characters:
    """Put random characters together from the strokes of an alphabet."""
    which = choose(random_keys(_SEED, _CHOICE, number * _DRAFTS + np.arange(_DRAFTS), _RADICALS), _STROKES)
    strokes = _radicals(number, style).take(which)
    u = _draw(number, _LAYOUT, 7, _DRAFTS, _STROKES)
    there = np.arange(_STROKES) < 2 + np.floor((1.3 + 1.7 * style.dense) * u[0, :, :1])
    parent = np.floor(np.arange(_STROKES) * u[1]).astype(np.int64)
    at = _PIECES // 4 * np.floor(5 * u[2]).astype(np.int64)
    own = _PIECES // 2 * np.floor(3 * u[3]).astype(np.int64)
    loose = there & (u[4] < 0.35 * style.loose)
    gap = loose[..., None] * (np.stack([u[5], u[6]], -1) - 0.5)
    return _Characters(strokes._replace(length=strokes.length * there), parent, at, own, gap)


def _distinct(pictures: NDArray[np.uint8], count: int) -> Ints:
    """Return the positions of ``count`` pictures that are unlike one another, beginning with the barest."""
    ink = pictures.astype(np.int64).reshape(len(pictures), 7, 4, 7, 4).sum((2, 4)).reshape(len(pictures), -1)
    squares = np.square(ink).sum(1)
    distance = squares[:, None] + squares - 2 * ink @ ink.T
    chosen = [int(squares.argmin())]
    nearest = distance[chosen[0]]
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distance[chosen[-1]])
    return np.array(chosen, np.int64)


class _Habits(NamedTuple):
    """What differs between drawings of a character, each from -1 to 1; all zero draws it as it is meant."""

    hand: Floats  # (8, 1, hands)
    drawing: Floats  # (6, characters, hands)
    stroke: Floats  # (11, characters, hands, strokes)


def _habits(number: int, characters: int) -> _Habits:
    shapes = (8, 1, _HANDS), (6, characters, _HANDS), (11, characters, _HANDS, _STROKES)
    streams = _HAND, _DRAWING, _STROKE
    return _Habits(*(2 * _draw(number, stream, *shape) - 1 for stream, shape in zip(streams, shapes, strict=True)))


def _still(characters: int) -> _Habits:
    return _Habits(np.zeros((8, 1, 1)), np.zeros((6, characters, 1)), np.zeros((11, characters, 1, _STROKES)))


def _write(characters: _Characters, habits: _Habits) -> NDArray[np.uint8]:
    """Return the drawings ``(characters, hands, side, side)``."""
    paths = _join(characters, _trace(characters.strokes, habits), habits)
    pen = 0.55 + 0.2 * habits.hand[0] + 0.05 * habits.drawing[0]
    return _ink(_fit(_slant(paths, habits), habits), pen)


def _trace(strokes: _Strokes, habits: _Habits) -> Floats:
    """Return the path of the pen in each stroke, ``(characters, hands, strokes, pieces + 1, 2)``."""
    length, heading, bend, corner, place, soft = (field[:, None, :, None] for field in strokes)
    early, aim, sharp, curl, lean, wave, rate, phase, stretch = habits.stroke[:9, ..., None]
    s = (np.arange(_PIECES) + 0.5) / _PIECES
    angle = heading + 0.1 * aim
    angle = angle + corner * (1 + 0.15 * sharp) * np.clip((s - place - 0.06 * early) / soft, -0.5, 0.5)
    angle = angle + (bend * (1 + 0.12 * curl + 0.12 * habits.hand[1, ..., None, None]) + 0.15 * lean) * (s - 0.5)
    angle = angle + 0.22 * wave * np.sin(np.pi * (s * (1 + 2 * rate) + 2 * phase))
    step = length * (1 + 0.15 * stretch) / _PIECES
    steps = np.stack([step * np.cos(angle), step * np.sin(angle)], -1)
    return np.concatenate([np.zeros_like(steps[..., :1, :]), steps.cumsum(-2)], -2)


def _join(characters: _Characters, paths: Floats, habits: _Habits) -> Floats:
    """Move each stroke but the first to where it touches its parent, or nearly so."""
    paths = paths.copy()
    each = np.arange(len(paths))
    slip = 0.05 * habits.stroke[9:11] * (characters.strokes.length > 0)[:, None]
    gap = characters.gap[:, None] + np.moveaxis(slip, 0, -1)  # (characters, hands, strokes, 2)
    for k in range(1, _STROKES):
        target = paths[each, :, characters.parent[:, k], characters.at[:, k]]
        own = paths[each, :, k, characters.own[:, k]]
        paths[:, :, k] += (target - own + gap[:, :, k])[:, :, None]
    return paths


def _slant(paths: Floats, habits: _Habits) -> Floats:
    """Shear, tilt and widen each drawing."""
    shear = 0.3 * habits.hand[2] + 0.1 * habits.drawing[1]
    tilt = 0.12 * habits.hand[3] + 0.1 * habits.drawing[2]
    wide = 1 + 0.2 * habits.hand[4]
    shear, tilt, wide = (habit[..., None, None] for habit in (shear, tilt, wide))
    x, y = paths[..., 0], paths[..., 1]
    return np.stack([wide * (x - shear * y), y + tilt * x], -1)


def _fit(paths: Floats, habits: _Habits) -> Floats:
    """Scale and move each drawing to its place on the paper, in pixels."""
    low, high = paths.min((2, 3)), paths.max((2, 3))
    size = 17.5 + 3 * habits.hand[5] + 1.5 * habits.drawing[3]
    scale = (size / (high - low).max(-1))[..., None]
    room = _SIDE / 2 - _MARGIN - scale * (high - low) / 2
    shift = np.moveaxis(1.5 * habits.hand[6:8] + 1.8 * habits.drawing[4:6], 0, -1)
    start = _SIDE / 2 + np.clip(shift, -room, room) - scale * (low + high) / 2
    fitted: Floats = scale[..., None, None] * paths + start[..., None, None, :]
    return fitted


@cache
def _blots() -> NDArray[np.float32]:
    """Return how far a pen at each stop of an axis wets each pixel of it, ``(stops, side)``."""
    distance = np.arange(_SIDE * _STOPS + 1)[:, None] / _STOPS - np.arange(_SIDE) - 0.5
    return _rounded(np.exp(-np.square(distance / _BLUR) / 2), 7)


def _rounded(x: Floats, bits: int) -> NDArray[np.float32]:
    rounded: NDArray[np.float32] = (np.round(x * 2**bits) * 2.0**-bits).astype(np.float32)
    return rounded


def _ink(paths: Floats, pen: Floats) -> NDArray[np.uint8]:
    """Return the pictures: paper is wet by a blurred pen, and black where it is wetter than ``pen``.

    A Gaussian blot is the product of one for each axis, so a picture is one matrix product over the pieces. Its terms
    are rounded to 20 binary places, and sums below 16 are then exact in float32, in any order and on any machine.
    """
    steps = np.diff(paths, axis=-2)
    stops = np.round((paths[..., :-1, :] + steps / 2) * _STOPS).astype(np.int64)
    x, y = (stops[..., i].reshape(*pen.shape, -1) for i in range(2))
    wet = _rounded(np.sqrt(np.square(steps).sum(-1)) / (_BLUR * math.sqrt(2 * math.pi)), 6)
    paper = (_blots()[y] * wet.reshape(*pen.shape, -1, 1)).swapaxes(-1, -2) @ _blots()[x]
    black = np.clip((paper - _rounded(pen, 6)[..., None, None]) / np.float32(0.6) + np.float32(0.5), 0, 1)
    return np.round(255 * black).astype(np.uint8)
