"""miniImageNet: 100 classes of 600 photographs, 84x84; the pictures are brought by the user."""

import csv
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from kshot.tasks.cache import DataUnavailable, Stored, data_folder
from kshot.tasks.files import read_picture
from kshot.tasks.labelled import LabelledData, Splits, check_disjoint

__all__ = ["miniimagenet", "prepare"]

SIDE = 84  # pixels
_PARTS = ("train", "val", "test")
_COLUMNS, _ROWS = 25, 24


class _Class(NamedTuple):
    """The pictures of one class: a file each, or one file with all of them as tiles."""

    name: str
    files: tuple[Path, ...]
    tiles: int = 0

    @property
    def size(self) -> int:
        """How many pictures there are."""
        return self.tiles or len(self.files)

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """Yield ``(channels, side, side)``, one picture after the other."""
        if self.tiles:
            yield from _mosaic(self.files[0], self.tiles)
        else:
            yield from (read_picture(file, SIDE, "RGB") for file in self.files)


_Listing: TypeAlias = Mapping[str, list[_Class]]


def miniimagenet(root: Path | None = None) -> Splits:
    """Load miniImageNet in the splits of Ravi and Larochelle: 64, 16 and 20 classes, 1.3 GB in memory.

    Oriol Vinyals et al. 2016, "Matching networks for one shot learning"; Sachin Ravi, Hugo Larochelle 2017, "Optimization
    as a model for few-shot learning". The pictures are ImageNet's, whose terms allow research and education that is not
    commercial; they are never downloaded. Place them in one of these layouts:

    - ``miniimagenet/images/*.jpg`` with ``train.csv``, ``val.csv`` and ``test.csv`` of ``filename,label`` beside;
    - ``miniimagenet/{train,val,test}/CLASS/*.jpg``;
    - ``miniimagenet/index.json`` with one mosaic of 25x24 tiles for each class (recompressed: finest texture is lost,
      and accuracy may lie a little under published figures).

    Args:
        root: the folder that holds ``miniimagenet/``; by default ``kshot.tasks.cache.data_folder()``.

    Raises:
        DataUnavailable: no layout is found.
        ValueError: a file is missing or damaged (named), or a class stands in two splits.
    """
    layout, listing = _find(_folder(root))
    counts = "/".join(str(len(listing[part])) for part in _PARTS)
    stamp = {"data": "miniimagenet", "resize": f"{SIDE}x{SIDE}", "pictures": layout}
    return check_disjoint(
        Splits(*(_load(listing[part], {**stamp, "split": f"{part} of {counts} classes"}) for part in _PARTS))
    )


def prepare(root: Path | None = None) -> Stored:
    """Say where the data lies and what it holds.

    Raises:
        DataUnavailable: no layout is found.
    """
    folder = _folder(root)
    classes = [found for part in _find(folder)[1].values() for found in part]
    return Stored(folder, len(classes), sum(found.size for found in classes))


def _folder(root: Path | None) -> Path:
    return (root or data_folder()) / "miniimagenet"


def _find(folder: Path) -> tuple[str, _Listing]:
    """Return what the pictures are, for the record of every result, and where they lie."""
    if (folder / "index.json").exists():
        return "recompressed mosaics", _read_index(folder)
    if (folder / "train.csv").exists():
        return "own files", {part: _read_csv(folder, part) for part in _PARTS}
    if (folder / "train").is_dir():
        return "own files", {part: _read_folders(folder / part) for part in _PARTS}
    raise DataUnavailable(
        f"miniImageNet is not in {folder}, and its licence does not allow a download. Place there images/*.jpg with "
        "train.csv, val.csv and test.csv (filename,label), or folders train, val and test of one folder for each class."
    )


def _read_index(folder: Path) -> _Listing:
    path = folder / "index.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        layout = index["tile"], index["columns"], index["rows"]
        rows = [(row["split"], _Class(row["wnid"], (folder / row["file"],), row["images"])) for row in index["classes"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or another file ({error!r}). Put the original file there.") from error
    if layout != (SIDE, _COLUMNS, _ROWS):
        raise ValueError(f"{path}: expected {_COLUMNS}x{_ROWS} tiles of {SIDE} pixels; found {layout}.")
    return {part: [found for split, found in rows if split == part] for part in _PARTS}


def _read_csv(folder: Path, part: str) -> list[_Class]:
    path = folder / f"{part}.csv"
    files: dict[str, list[Path]] = {}
    with _named(path).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row.get("filename") or not row.get("label"):
                raise ValueError(f"{path}: expected the columns filename,label; found the row {row}.")
            files.setdefault(row["label"], []).append(folder / "images" / row["filename"])
    return [_Class(label, tuple(files[label])) for label in sorted(files)]


def _read_folders(path: Path) -> list[_Class]:
    folders = sorted(folder for folder in _named(path).iterdir() if folder.is_dir())
    suffixes = Image.registered_extensions()
    listed = {folder: [file for file in folder.iterdir() if file.suffix.lower() in suffixes] for folder in folders}
    return [_Class(folder.name, tuple(sorted(files))) for folder, files in listed.items()]


def _named(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path} is missing: train, val and test must be there, each with its own classes.")
    return path


def _load(classes: list[_Class], stamp: Mapping[str, str]) -> LabelledData:
    """Decode the pictures of one split into one array, several classes at a time."""
    counts = np.array([found.size for found in classes], np.int64)
    x = torch.empty(int(counts.sum()), 3, SIDE, SIDE, dtype=torch.uint8)
    pixels = x.numpy()

    def fill(found: _Class, start: int) -> None:
        for row, picture in enumerate(found.pictures(), start):
            pixels[row] = picture

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, classes, (counts.cumsum() - counts).tolist()))
    labels = torch.arange(len(classes)).repeat_interleave(torch.from_numpy(counts))
    return LabelledData(x, labels, tuple(found.name for found in classes), stamp=stamp)


def _mosaic(path: Path, tiles: int) -> NDArray[np.uint8]:
    """Cut a mosaic into its first tiles, ``(tiles, 3, side, side)``."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        grid = pixels.reshape(_ROWS, SIDE, _COLUMNS, SIDE, 3)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not a whole mosaic ({error}). Put the original file there.") from error
    return grid.transpose(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE)[:tiles]
