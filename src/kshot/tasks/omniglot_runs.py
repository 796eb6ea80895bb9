"""The official one-shot task on Omniglot: 20 fixed runs, for which the errors of people are published."""

import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.core import Batch, Episode, one_hot
from kshot.tasks.cache import data_folder
from kshot.tasks.omniglot_pack import Characters, fetch, naming, prepared, read_npz, read_png, unpack, write_npz

__all__ = ["Runs", "lake_runs", "pack_runs"]

RUNS = 20
WAYS = 20
_ARCHIVE = "one-shot-classification/all_runs.zip"
_CHECKSUM = "sha256:437c1eeab0af8484112e1b4cc0f3d541ec727f7c47b9b202da738af9dfd6c325"
_ANSWER = re.compile(r"item(\d+)\.png\s+\S*class(\d+)\.png")


class Runs(NamedTuple):
    """The arrays of ``oneshot_runs.npz``, ``(run, item, ...)``."""

    train_packed: NDArray[np.uint8]  # (20, 20, 105, 14), one bit a pixel, 1 = ink
    test_packed: NDArray[np.uint8]
    test_label: NDArray[np.int16]  # the training item of the same character
    train_class: NDArray[np.int16]  # where each drawing stands in omniglot.npz; drawers count from 1
    train_drawer: NDArray[np.int8]
    test_class: NDArray[np.int16]
    test_drawer: NDArray[np.int8]


def lake_runs(root: Path | None = None) -> Episode:
    """Load the 20 official runs as stacked tasks: 20-way one-shot within an alphabet, 20 queries, ink 1 on paper 0.

    People err on 4.5 % of the 400 queries, Bayesian program learning on 3.3 %, the modified Hausdorff distance on 38.8 %
    (Lake, Salakhutdinov, Tenenbaum 2015). The first time the runs are downloaded (0.4 MB).

    Args:
        root: the folder that holds ``omniglot/``; by default ``kshot.tasks.cache.data_folder()``.

    Raises:
        DataUnavailable: the runs are not on this machine and cannot be downloaded.
        ValueError: a file is damaged; it is named, and how to mend it.
    """
    runs = Runs(*read_npz(_prepared_runs(root), Runs._fields))
    support = one_hot(torch.arange(WAYS).expand(RUNS, WAYS), WAYS)
    query = one_hot(torch.from_numpy(runs.test_label.astype(np.int64)), WAYS)
    return Episode(Batch(_pictures(runs.train_packed), support), Batch(_pictures(runs.test_packed), query))


def _pictures(packed: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(unpack(packed))[:, :, None].to(torch.get_default_dtype())  # (run, item, 1, 105, 105)


def _prepared_runs(root: Path | None) -> Path:
    folder = (root or data_folder()) / "omniglot"
    path = folder / "oneshot_runs.npz"
    if not path.exists():
        fetched = not (folder / Path(_ARCHIVE).name).exists()
        archive = fetch(folder, _ARCHIVE, _CHECKSUM)
        characters = Characters(*read_npz(prepared(root), Characters._fields))
        write_npz(path, pack_runs(archive, characters)._asdict())
        if fetched:
            archive.unlink(missing_ok=True)  # another process may have fetched it too
    return path


def pack_runs(archive: Path, characters: Characters) -> Runs:
    """Read the official archive, and find each of its drawings among all characters.

    Raises:
        ValueError: the archive is damaged, or holds a drawing that is not in Omniglot.
    """
    with naming(archive), zipfile.ZipFile(archive) as file:
        train = _drawings(file, "training/class")
        test = _drawings(file, "test/item")
        labels = np.stack([_answers(file.read(f"run{run + 1:02}/class_labels.txt").decode()) for run in range(RUNS)])
        return Runs(train, test, labels, *_places(train, characters), *_places(test, characters))


def _places(drawings: NDArray[np.uint8], characters: Characters) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    """Return the class and the drawer, counted from 1, of each drawing."""
    known = {
        drawing.tobytes(): (row, drawer)
        for row, drawn in enumerate(characters.images_packed)
        for drawer, drawing in enumerate(drawn, start=1)
    }
    found = [[known.get(drawing.tobytes()) for drawing in run] for run in drawings]
    if strangers := sum(place is None for run in found for place in run):
        raise ValueError(f"expected drawings of Omniglot; found {strangers} others")
    places = np.array(found)
    return places[..., 0].astype(np.int16), places[..., 1].astype(np.int8)


def _drawings(file: zipfile.ZipFile, kind: str) -> NDArray[np.uint8]:
    """Return ``(20, 20, 105, 14)``: the drawings of one kind in each run, packed."""
    names = [[f"run{run + 1:02}/{kind}{item + 1:02}.png" for item in range(WAYS)] for run in range(RUNS)]
    return np.packbits(np.stack([[read_png(file, name) for name in run] for run in names]), axis=-1)


def _answers(text: str) -> NDArray[np.int16]:
    """Return the class of each test item from lines such as ``run01/test/item01.png run01/training/class05.png``."""
    answers = dict(sorted((int(item), int(label) - 1) for item, label in _ANSWER.findall(text)))
    if list(answers) != list(range(1, WAYS + 1)):
        raise ValueError(f"expected answers for items 1 .. {WAYS}; found {list(answers)}")
    return np.array(list(answers.values()), np.int16)
