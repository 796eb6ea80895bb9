"""Omniglot as one small file: the official archives of 32,460 pictures packed to one bit a pixel."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.atomic import atomic_file
from kshot.tasks.cache import data_folder, writing
from kshot.tasks.download import download

__all__ = [
    "DRAWERS",
    "SIDE",
    "VAL_ALPHABETS",
    "Characters",
    "fetch",
    "naming",
    "pack",
    "prepared",
    "read_npz",
    "read_png",
    "unpack",
    "write_npz",
]

SIDE = 105  # pixels
DRAWERS = 20
VAL_ALPHABETS = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
_MIRRORS = (
    "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
    "https://github.com/brendenlake/omniglot/raw/master/python/",
)
_ARCHIVES = {
    "images_background.zip": "md5:68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "md5:6b91aef0f799c5bb55b94e3f2daec811",
}
_LAST_TRAIN_CHARACTER = ("Gurmukhi", 41)
_PICTURE = re.compile(r"(?:^|/)([^/]+)/character(\d+)/(\d+)_(\d+)\.png$")
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, SyntaxError, KeyError, ValueError)


class Characters(NamedTuple):
    """The arrays of ``omniglot.npz``, one row for each character: background alphabets first, in alphabetical order."""

    images_packed: NDArray[np.uint8]  # (characters, drawers, 105, 14), one bit a pixel, 1 = ink
    alphabet_names: NDArray[Any]  # strings; their dtype depends on the longest
    class_alphabet: NDArray[np.int16]  # positions in alphabet_names
    class_character: NDArray[np.int16]  # the number in the folder name
    class_id: NDArray[np.int16]  # the number that opens the file names
    class_is_background: NDArray[np.bool_]
    class_vinyals_split: NDArray[np.int8]  # 0 train, 1 val, 2 test

    @property
    def alphabets(self) -> NDArray[Any]:
        """The alphabet of each character."""
        return self.alphabet_names[self.class_alphabet]


def prepared(root: Path | None) -> Path:
    """Return the path of ``omniglot.npz``, which is downloaded and packed if it is not there."""
    folder = (root or data_folder()) / "omniglot"
    path = folder / "omniglot.npz"
    if not path.exists():
        # Archives that someone placed there stay; those fetched here have served once they are packed.
        fetched = [folder / name for name in _ARCHIVES if not (folder / name).exists()]
        characters = pack(*(fetch(folder, name, checksum) for name, checksum in _ARCHIVES.items()))
        write_npz(path, characters._asdict())
        for archive in fetched:
            archive.unlink(missing_ok=True)  # another process may have fetched it too
    return path


def fetch(folder: Path, name: str, checksum: str) -> Path:
    """Download a file of the official repository into a folder, under the last part of its name."""
    return download([mirror + name for mirror in _MIRRORS], folder / Path(name).name, checksum)


def pack(background: Path, evaluation: Path) -> Characters:
    """Read the two official archives, ``ALPHABET/characterNN/NNNN_DD.png`` in each.

    Raises:
        ValueError: an archive is damaged, or a drawing is missing (named).
    """
    images, rows = [], []
    for archive in (background, evaluation):
        with naming(archive), zipfile.ZipFile(archive) as file:
            for (alphabet, character), drawings in sorted(_drawings(file).items()):
                images.append(np.stack([read_png(file, name) for name in drawings]))
                split = vinyals_split(alphabet, character, archive == background)
                number = int(Path(drawings[0]).name.partition("_")[0])
                rows.append((alphabet, character, number, archive == background, split))
    alphabets, characters, numbers, is_background, splits = zip(*rows, strict=True)
    names = list(dict.fromkeys(alphabets))
    return Characters(
        np.packbits(np.stack(images), axis=-1),
        np.array(names),
        np.array([names.index(alphabet) for alphabet in alphabets], np.int16),
        np.array(characters, np.int16),
        np.array(numbers, np.int16),
        np.array(is_background),
        np.array(splits, np.int8),
    )


def vinyals_split(alphabet: str, character: int, background: bool) -> int:
    """Return 0, 1 or 2 for train, val or test: the lists that come with the code of prototypical networks, as a rule.

    Five background alphabets are for validation. The characters after the 1,200th, in alphabetical order with the
    background alphabets first, are for testing, so that Gurmukhi alone is split.

    >>> vinyals_split("Gurmukhi", 41, background=False), vinyals_split("Gurmukhi", 42, background=False)
    (0, 2)
    """
    if alphabet in VAL_ALPHABETS:
        return 1
    return 2 if not background and (alphabet, character) > _LAST_TRAIN_CHARACTER else 0


def _drawings(file: zipfile.ZipFile) -> dict[tuple[str, int], list[str]]:
    """Return the names of the drawings of each (alphabet, character), in the order of the drawers."""
    found: dict[tuple[str, int], dict[int, str]] = {}
    for name in file.namelist():
        if match := _PICTURE.search(name):
            found.setdefault((match[1], int(match[2])), {})[int(match[4])] = name
    if not found:
        raise ValueError("expected ALPHABET/characterNN/NNNN_DD.png inside; found no such file")
    drawers = range(1, DRAWERS + 1)
    for (alphabet, character), drawings in found.items():
        if missing := sorted(set(drawers) - set(drawings)):
            raise ValueError(f"{alphabet}/character{character:02} lacks drawer {', '.join(map(str, missing))}")
    return {key: [drawings[drawer] for drawer in drawers] for key, drawings in found.items()}


def read_png(file: zipfile.ZipFile, name: str) -> NDArray[np.bool_]:
    """Read one drawing as ``(105, 105)``, true where there is ink."""
    with Image.open(io.BytesIO(file.read(name))) as picture:
        ink = np.asarray(picture.convert("L")) < 128
    if ink.shape != (SIDE, SIDE):
        raise ValueError(f"{name}: expected {SIDE}x{SIDE} pixels; found {ink.shape[1]}x{ink.shape[0]}")
    return ink


def unpack(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn ``(..., 105, 14)`` packed drawings into ``(..., 105, 105)``, 1 = ink."""
    return np.unpackbits(packed, axis=-1, count=SIDE)


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays, compressed."""
    with writing(path), atomic_file(path) as file:
        np.savez_compressed(file, **arrays)


def read_npz(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Read the arrays of these names, checked against the checksums that the file carries.

    Raises:
        ValueError: the file is cut short or damaged, or lacks an array.
    """
    # NumPy leaves a file that it opened itself open when it turns out to be damaged.
    with naming(path), path.open("rb") as file, np.load(file) as arrays:
        return [arrays[name] for name in names]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say which file is damaged, and how to mend it."""
    try:
        yield
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it and run `kshot data omniglot`.") from error
