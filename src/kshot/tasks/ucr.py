"""Time series with many classes and few examples, of the UCR archive; they are brought by the user."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kshot.tasks.cache import DataUnavailable, Stored, data_folder
from kshot.tasks.labelled import LabelledData

__all__ = ["FEW_SHOT_SETS", "prepare", "ucr"]

FEW_SHOT_SETS = (
    "ShapesAll",  # 60 classes
    "FiftyWords",  # 50
    "Adiac",  # 37
    "GestureMidAirD1",  # 26
    "Fungi",  # 18
    "SwedishLeaf",  # 15
    "FacesUCR",  # 14
    "CricketX",  # 12
)
_DAMAGE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
_Part = tuple[NDArray[Any], NDArray[Any]]  # series (n, length) with NaN behind the end, and labels (n,)


def ucr(name: str, root: Path | None = None) -> LabelledData:
    """Load one set of the UCR archive, its train and test part joined: ``(n, 1, length)``.

    Hoang Anh Dau et al. 2019, "The UCR time series archive"; offered for research, with a request to cite, and never
    downloaded. Place ``NAME/NAME_TRAIN.tsv`` and ``NAME/NAME_TEST.tsv`` of the archive in ``ucr_fewshot/``, or ``NAME.npz``
    with ``x_train, y_train, x_test, y_test``.

    Series that end in NaN, as shorter ones do, are stretched linearly to the common length. Each gets mean zero and
    deviation one, which those of most sets have already.

    Args:
        name: of the set: one of ``FEW_SHOT_SETS``, or any other of the archive that is there.
        root: the folder that holds ``ucr_fewshot/``; by default ``kshot.tasks.cache.data_folder()``.

    Raises:
        DataUnavailable: the set is not there.
        ValueError: a file is damaged (named), or a series has no value or a gap.
    """
    path, parts = _find(name, _folder(root))
    x = np.concatenate([_series(path, part) for part, _ in parts])
    labels = np.concatenate([labels for _, labels in parts]).astype(np.int64)
    values, numbers = np.unique(labels, return_inverse=True)
    return LabelledData(
        torch.from_numpy(x)[:, None],
        torch.from_numpy(numbers.astype(np.int64)),
        tuple(f"{name}/{value}" for value in values.tolist()),
        stamp={"data": f"ucr {name}", "series": "train and test joined, stretched to one length, normalised each"},
    )


def prepare(root: Path | None = None) -> Stored:
    """Say where the sets lie and what they hold.

    Raises:
        DataUnavailable: one of ``FEW_SHOT_SETS`` is not there.
    """
    sets = [ucr(name, root) for name in FEW_SHOT_SETS]
    return Stored(_folder(root), sum(len(data.classes) for data in sets), sum(len(data.x) for data in sets))


def _folder(root: Path | None) -> Path:
    return (root or data_folder()) / "ucr_fewshot"


def _find(name: str, folder: Path) -> tuple[Path, list[_Part]]:
    packed, plain = folder / f"{name}.npz", [folder / name / f"{name}_{part}.tsv" for part in ("TRAIN", "TEST")]
    try:
        if packed.exists():
            with packed.open("rb") as file, np.load(file) as arrays:
                return packed, [(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
        if all(path.exists() for path in plain):
            tables = [np.loadtxt(path, delimiter="\t", ndmin=2) for path in plain]
            return folder / name, [(table[:, 1:], table[:, 0]) for table in tables]
    except _DAMAGE as error:
        raise ValueError(
            f"{packed if packed.exists() else folder / name} is damaged ({error}). Fetch it again."
        ) from error
    raise DataUnavailable(
        f"{name} of the UCR archive is not in {folder}: place {name}/{name}_TRAIN.tsv and {name}/{name}_TEST.tsv of "
        "https://www.cs.ucr.edu/~eamonn/time_series_data_2018/ there."
    )


def _series(path: Path, values: NDArray[Any]) -> NDArray[np.float32]:
    """Stretch series to one length and normalise them."""
    present = ~np.isnan(values)
    lengths = present.sum(1)
    if (present != (np.arange(values.shape[1]) < lengths[:, None])).any() or (lengths == 0).any():
        raise ValueError(
            f"{path}: expected NaN behind the end of a series only; found a gap, or a series without values."
        )
    x = values.astype(np.float32)
    for row in np.flatnonzero(lengths < values.shape[1]):
        places = np.linspace(0, lengths[row] - 1, values.shape[1])
        x[row] = np.interp(places, np.arange(lengths[row]), x[row, : lengths[row]])
    deviation = x.std(1, keepdims=True)
    return (x - x.mean(1, keepdims=True)) / np.where(deviation > 0, deviation, 1)  # type: ignore[no-any-return]
