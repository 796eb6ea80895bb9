"""A user's own files: folders of pictures and tables."""

import csv
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["centre_square", "read_folder", "read_picture", "read_table"]


def read_picture(path: Path, size: int, mode: Literal["RGB", "L"]) -> NDArray[np.uint8]:
    """Read one picture as ``(channels, size, size)``: the centre square, antialiased.

    Raises:
        ValueError: the file is not a picture, or is cut short.
    """
    try:
        with Image.open(path) as picture:
            return centre_square(picture, size, mode)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a whole picture that Pillow can read ({error}).") from error


def centre_square(picture: Image.Image, size: int, mode: Literal["RGB", "L"]) -> NDArray[np.uint8]:
    """Return the centre square of a picture as ``(channels, size, size)``, antialiased."""
    # Converted first: Pillow would resize a 1-bit or palette picture without antialiasing.
    whole = picture.convert(mode)
    side = min(whole.size)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    square = whole.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    array = np.asarray(square)
    return array.transpose(2, 0, 1) if array.ndim == 3 else array[None]


def read_folder(path: Path, size: int, mode: Literal["RGB", "L"], skip_unreadable: bool) -> tuple[Tensor, list[str]]:
    """Read ``path/CLASS/PICTURE``: pictures ``(n, channels, size, size)`` uint8, and the class name of each."""
    if not path.is_dir():
        raise ValueError(f"expected a folder with one folder of pictures for each class; {path} is not a folder.")
    files = [file for folder in sorted(path.iterdir()) if folder.is_dir() for file in sorted(folder.rglob("*"))]
    pictures, labels, unreadable = [], [], []
    for file in files:
        if not file.is_file() or file.name.startswith("."):
            continue
        try:
            pictures.append(read_picture(file, size, mode))
            labels.append(file.relative_to(path).parts[0])
        except ValueError:
            unreadable.append(file)
    if unreadable and not skip_unreadable:
        names = ", ".join(str(file.relative_to(path)) for file in unreadable[:5])
        raise ValueError(
            f"{len(unreadable)} files under {path} are not whole pictures: {names}. "
            "Remove them, or pass skip_unreadable=True to leave them out."
        )
    if not pictures:
        raise ValueError(f"no pictures found in class folders under {path}; expected {path}/CLASS/PICTURE.png.")
    return torch.from_numpy(np.stack(pictures)), labels


def read_table(path: Path, label: str) -> tuple[Tensor, list[str]]:
    """Read a csv table: numbers ``(n, columns - 1)`` and the class of each row."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        if label not in columns:
            raise ValueError(
                f"{path} has no column {label!r}; found {', '.join(columns)}. Name the class column with label=."
            )
        columns.remove(label)
        rows, labels = [], []
        for line, row in enumerate(reader, start=2):
            rows.append([_number(row[column], path, line, column) for column in columns])
            labels.append(row[label])
    if not rows:
        raise ValueError(f"{path} has a header and no rows.")
    return torch.tensor(rows), labels


def _number(cell: str | None, path: Path, line: int, column: str) -> float:
    try:
        return float(cell or "")
    except ValueError as error:
        raise ValueError(f"{path}, line {line}, column {column!r}: expected a number; found {cell!r}.") from error
