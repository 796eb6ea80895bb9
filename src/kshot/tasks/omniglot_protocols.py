"""The published protocols on Omniglot: which characters, turns and drawers each of them trains and tests on."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kshot.tasks.keys import choose, random_keys
from kshot.tasks.labelled import Rotations
from kshot.tasks.omniglot_pack import SIDE, VAL_ALPHABETS, Characters
from kshot.validation import check_choice

__all__ = ["Protocol", "ProtocolName", "published_protocol"]

ProtocolName: TypeAlias = Literal["vinyals", "finn", "reptile", "relation", "mamlpp", "mann", "koch", "lake"]
Parts: TypeAlias = tuple[NDArray[np.int64], ...]  # the characters of train, val and test

_SEED = 1
# The alphabets of Lake's 20 official runs.
_RUN_ALPHABETS = (
    *("Atlantean", "Ge_ez", "Glagolitic", "Gurmukhi", "Kannada", "Malayalam", "Manipuri"),
    *("Old_Church_Slavonic_(Cyrillic)", "Tengwar", "Tibetan"),
)


class Protocol(NamedTuple):
    """One published way to use Omniglot; triples are for train, val and test."""

    parts: Callable[[Characters], Parts]
    split: str  # in words, for the record of every result
    rotations: tuple[Rotations, Rotations, Rotations] = ("none", "none", "none")
    size: int = 28
    inverted: bool = True  # ink is 1 on paper 0, the inverse of the files
    drawers: tuple[slice, slice, slice] = (slice(None), slice(None), slice(None))
    left_out: str = ""  # what the paper did to the pictures beside this


def published_protocol(name: str) -> Protocol:
    """Return the protocol of this name.

    Raises:
        ValueError: there is none of this name.
    """
    check_choice("protocol", name, ProtocolName)
    return _PROTOCOLS[name]


def _vinyals(characters: Characters) -> Parts:
    return tuple(np.flatnonzero(characters.class_vinyals_split == part) for part in range(3))


def _shuffled(train: int) -> Callable[[Characters], Parts]:
    """Deal 1,200 characters to train and val, and the other 423 to test."""

    def parts(characters: Characters) -> Parts:
        count = len(characters.class_id)
        # Not NumPy's shuffle, which may change from one release to the next.
        order = choose(random_keys(_SEED, 0, np.zeros(1, np.int64), count), count)[0]
        return tuple(np.sort(part) for part in np.split(order, [train, 1200]))

    return parts


def _koch(characters: Characters) -> Parts:
    test = np.isin(characters.alphabets, _RUN_ALPHABETS)
    train = characters.class_is_background
    return tuple(np.flatnonzero(part) for part in (train, ~train & ~test, test))


def _lake(characters: Characters) -> Parts:
    background = characters.class_is_background
    val = np.isin(characters.alphabets, VAL_ALPHABETS)
    return tuple(np.flatnonzero(part) for part in (background & ~val, val, ~background))


_HELD_OUT = "1100/100/423 random characters, val taken from the 1200 for training"
_PROTOCOLS: Mapping[str, Protocol] = {
    "vinyals": Protocol(_vinyals, "1028/172/423 characters by alphabet", ("classes", "classes", "classes")),
    "finn": Protocol(_shuffled(1100), "1100/100/423 random characters", ("per_class", "per_class", "per_class")),
    "reptile": Protocol(_shuffled(1100), _HELD_OUT, ("classes", "none", "none"), inverted=False),
    "relation": Protocol(_shuffled(1100), _HELD_OUT, ("per_episode", "per_episode", "per_episode")),
    "mamlpp": Protocol(_shuffled(1150), "1150/50/423 random characters", ("per_class", "none", "none")),
    "mann": Protocol(
        _shuffled(1100), _HELD_OUT, ("classes", "classes", "classes"), size=20, left_out="small random shifts and turns"
    ),
    "koch": Protocol(
        _koch,
        "30/10/10 alphabets, drawers 1-12/13-16/17-20, test alphabets of Lake's 20 runs",
        size=SIDE,
        drawers=(slice(0, 12), slice(12, 16), slice(16, 20)),
        left_out="affine distortions",
    ),
    "lake": Protocol(_lake, "25/5/20 alphabets, val taken from the 30 background alphabets", size=SIDE),
}
