"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn by 20 people."""

from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from kshot.tasks.cache import Stored
from kshot.tasks.labelled import LabelledData, Splits, check_disjoint
from kshot.tasks.omniglot_pack import DRAWERS, SIDE, Characters, prepared, read_npz, unpack
from kshot.tasks.omniglot_protocols import Protocol, ProtocolName, published_protocol
from kshot.tasks.omniglot_runs import lake_runs

__all__ = ["ProtocolName", "Resize", "lake_runs", "omniglot", "prepare"]

Resize: TypeAlias = Literal["nearest", "antialiased"]

_CHARACTERS = 1623
_CHUNK = 2048  # pictures unpacked at a time


def omniglot(
    protocol: ProtocolName = "vinyals", resize: Resize = "nearest", size: int | None = None, root: Path | None = None
) -> Splits:
    """Load Omniglot as one published protocol uses it; the first time it is downloaded (16 MB).

    Brenden Lake, Ruslan Salakhutdinov, Joshua Tenenbaum 2015, "Human-level concept learning through probabilistic
    program induction". MIT licence.

    ============ =============================== ================================== =========================
    protocol     train / val / test              quarter turns (train, val, test)   pictures
    ============ =============================== ================================== =========================
    ``vinyals``  1028 / 172 / 423, by alphabet   classes of their own, everywhere   28x28
    ``finn``     1100 / 100 / 423, random        one for each class of a task       28x28
    ``reptile``  1100 / 100 / 423, random        classes of their own, train only   28x28, ink 0 on paper 1
    ``relation`` 1100 / 100 / 423, random        one for the whole task             28x28
    ``mamlpp``   1150 / 50 / 423, random         one for each class, train only     28x28
    ``mann``     1100 / 100 / 423, random        classes of their own, everywhere   20x20, without jitter
    ``koch``     30 / 10 / 10 alphabets          none                               105x105, without distortion
    ``lake``     25 / 5 / 20 alphabets           none                               105x105
    ============ =============================== ================================== =========================

    The random splits have the published sizes, not the published characters: those depend on the order in which the
    authors' disks listed their files. All are cut from one fixed shuffle, so they share the 423 test characters.
    Reptile, Relation Net and MANN train on 1,200 characters and have none for validation: the last 100 are held out
    here. Koch's list of alphabets is not published: the ten of Lake's official runs are for testing, the other ten
    evaluation alphabets for validation, and 12, 4 and 4 of the drawers are for train, val and test. Lake's
    protocol has no validation either: five of the 30 background alphabets, those of ``vinyals``, are held out.

    Args:
        protocol: whose, as in the table.
        resize: ``nearest`` keeps the pixels 0 or 1, which is what Pillow gave to the authors of the older papers, as
            their pictures had one bit a pixel; ``antialiased`` gives grey levels, as loaders that first convert to grey.
        size: side of the pictures, if not the published one.
        root: the folder that holds ``omniglot/``; by default ``kshot.tasks.cache.data_folder()``.

    Raises:
        DataUnavailable: the data is not on this machine and cannot be downloaded.
        ValueError: a file is damaged (named, and how to mend it), or an argument is out of range.
    """
    chosen = published_protocol(protocol)
    side = chosen.size if size is None else size
    if not 1 <= side <= SIDE:
        raise ValueError(f"size must lie in 1 .. {SIDE}; found {side}.")
    path = prepared(root)
    return _load(path, path.stat().st_mtime_ns, protocol, resize, side)


def prepare(root: Path | None = None) -> Stored:
    """Download and pack the data where needed; say where it lies and what it holds."""
    path = prepared(root)
    [images] = read_npz(path, ["images_packed"])
    return Stored(path, len(images), images.shape[0] * images.shape[1])


@lru_cache(maxsize=1)
def _load(path: Path, modified: int, protocol: ProtocolName, resize: Resize, side: int) -> Splits:
    del modified  # a file that was replaced is read again
    characters = Characters(*read_npz(path, Characters._fields))
    expected, found = (_CHARACTERS, DRAWERS, SIDE, (SIDE + 7) // 8), characters.images_packed.shape
    if found != expected:
        raise ValueError(
            f"{path} is not the whole of Omniglot: expected drawings {expected}, found {found}. "
            "Delete it and run `kshot data omniglot`."
        )
    chosen = published_protocol(protocol)
    parts = zip(("train", "val", "test"), chosen.parts(characters), chosen.rotations, chosen.drawers, strict=True)
    stamp = _stamp(protocol, chosen, resize, side)
    return check_disjoint(
        Splits(
            *(
                LabelledData(
                    _pictures(characters.images_packed[classes, drawers], side, resize, chosen.inverted),
                    torch.arange(len(classes)).repeat_interleave(len(range(DRAWERS)[drawers])),
                    _names(characters, classes),
                    tuple(characters.alphabets[classes].tolist()),
                    rotations,
                    {**stamp, "split": f"{name} of {protocol}: {chosen.split}"},
                )
                for name, classes, rotations, drawers in parts
            )
        )
    )


def _names(characters: Characters, classes: NDArray[np.int64]) -> tuple[str, ...]:
    numbered = zip(characters.alphabets[classes], characters.class_character[classes], strict=True)
    return tuple(f"{alphabet}/character{number:02}" for alphabet, number in numbered)


def _stamp(protocol: ProtocolName, chosen: Protocol, resize: Resize, side: int) -> dict[str, str]:
    stamp = {
        "data": "omniglot",
        "split": protocol,
        "resize": f"{side}x{side} {'as drawn' if side == SIDE else resize}",
        "ink": "1 on paper 0" if chosen.inverted else "0 on paper 1",
    }
    return {**stamp, "left out": chosen.left_out} if chosen.left_out else stamp


def _pictures(packed: NDArray[np.uint8], side: int, resize: Resize, inverted: bool) -> Tensor:
    """Turn packed drawings ``(classes, drawers, 105, 14)`` into pictures ``(n, 1, side, side)`` of 0 to 255."""
    flat = packed.reshape(-1, *packed.shape[2:])
    pictures = torch.empty(len(flat), 1, side, side, dtype=torch.uint8)
    for start in range(0, len(flat), _CHUNK):
        ink = torch.from_numpy(unpack(flat[start : start + _CHUNK]))[:, None] * 255
        pictures[start : start + _CHUNK] = _resized(ink, side, resize)
    return pictures if inverted else 255 - pictures


def _resized(ink: Tensor, side: int, resize: Resize) -> Tensor:
    # 105 is odd, so no pixel centre falls on a border: resizing and quarter turns may go in either order.
    if resize == "antialiased":
        # Within one grey level of what Pillow's BILINEAR gives for a grey picture.
        return F.interpolate(ink, size=(side, side), mode="bilinear", antialias=True)
    return F.interpolate(ink, size=(side, side), mode="nearest-exact")
