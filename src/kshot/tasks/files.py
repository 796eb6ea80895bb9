"""A user's own files: folders of pictures and tables."""

import csv
import io
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

__all__ = ["centre_square", "picture_files", "read_folder", "read_picture", "read_table"]


def read_picture(path: Path, size: int, mode: Literal["RGB", "L"]) -> NDArray[np.uint8]:
    """Read one picture as ``(channels, size, size)``: the centre square, antialiased.

    Raises:
        ValueError: the file is not a picture, is cut short, or has values without a known white.
    """
    try:
        with Image.open(path) as picture:
            return centre_square(picture, size, mode)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a whole picture that Pillow can read ({error}).") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def centre_square(picture: Image.Image, size: int, mode: Literal["RGB", "L"]) -> NDArray[np.uint8]:
    """Return the centre square of a picture as ``(channels, size, size)``, antialiased: as one sees it, on white paper.

    Raises:
        ValueError: its values are of 32 bits, of which it is not known what is white.
    """
    # Converted first: Pillow would resize a 1-bit or palette picture without antialiasing.
    whole = _as_seen(picture).convert(mode)
    side = min(whole.size)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    square = whole.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    array = np.asarray(square)
    return array.transpose(2, 0, 1) if array.ndim == 3 else array[None]


def _as_seen(picture: Image.Image) -> Image.Image:
    """Return a picture upright, without transparency and with 8 bits: what ``convert`` alone does not look after."""
    picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"the picture has values of 32 bits (mode {picture.mode}), of which the largest may not be white. "
            "Scale them to 8 or 16 bits."
        )
    return picture


def read_folder(path: Path, size: int, mode: Literal["RGB", "L"], skip_unreadable: bool) -> tuple[Tensor, list[str]]:
    """Read ``path/CLASS/PICTURE``: pictures ``(n, channels, size, size)`` uint8, and the class name of each."""
    if not path.is_dir():
        raise ValueError(f"expected a folder with one folder of pictures for each class; {path} is not a folder.")
    pictures, labels, unreadable = [], [], dict[str, ValueError]()
    for file, label in picture_files(path):
        try:
            pictures.append(read_picture(file, size, mode))
            labels.append(label)
        except ValueError as error:
            unreadable[str(file.relative_to(path))] = error
    if unreadable and not skip_unreadable:
        raise ValueError(
            f"{len(unreadable)} files under {path} are not whole pictures: {', '.join([*unreadable][:5])}; the first: "
            f"{next(iter(unreadable.values()))} Remove them, or, in Python, leave them out by skip_unreadable=True."
        )
    if lost := sorted({Path(name).parts[0] for name in unreadable} - set(labels)):
        raise ValueError(f"no picture of {', '.join(lost)} under {path} can be read. Leave these classes out by hand.")
    return torch.from_numpy(np.stack(pictures)), labels


def picture_files(path: Path) -> list[tuple[Path, str]]:
    """Return the files of ``path/CLASS/PICTURE`` and the class of each; hidden ones are left out.

    Raises:
        ValueError: there is none, or a class has none.
    """
    classes = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
    files = [
        (file, folder.name)
        for folder in classes
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    ]
    if not files:
        raise ValueError(f"no pictures found in class folders under {path}; expected {path}/CLASS/PICTURE.png.")
    if empty := sorted({folder.name for folder in classes} - {label for _, label in files}):
        raise ValueError(f"class folders under {path} are empty: {', '.join(empty)}. Add pictures, or remove them.")
    return files


def read_table(path: Path, label: str) -> tuple[Tensor, list[str]]:
    """Read a csv table: numbers ``(n, columns - 1)`` and the class of each row.

    Raises:
        ValueError: the path, and where it can be the line, tell what is not as in such a table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # as spreadsheets save it, with a mark or without
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not encoded as UTF-8 ({error}). Save it so.") from error
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        if label not in columns:
            raise ValueError(
                f"{path} has no column {label!r}; found {', '.join(columns)}. Name the class column with label=."
            )
        if len(set(columns)) < len(columns):
            raise ValueError(f"{path} has two columns of one name among {', '.join(columns)}. Rename one.")
        columns.remove(label)
        if not columns:
            raise ValueError(f"{path} has the column {label} alone; expected columns of numbers beside it.")
        rows, labels = [], []
        for row in reader:
            line = reader.line_num
            if None in row or None in row.values():
                raise ValueError(f"{path}, line {line}: expected {len(columns) + 1} cells, as in the header.")
            if not row[label].strip():
                raise ValueError(f"{path}, line {line} has no {label}. Fill it in, or leave the line out.")
            rows.append([_number(row[column], path, line, column) for column in columns])
            labels.append(row[label])
    if not rows:
        raise ValueError(f"{path} has a header and no rows.")
    return torch.tensor(rows), labels


def _number(cell: str, path: Path, line: int, column: str) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise ValueError(f"{path}, line {line}, column {column!r}: expected a number; found {cell!r}.") from error
