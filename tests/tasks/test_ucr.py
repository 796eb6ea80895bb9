"""Time series of the UCR archive: both layouts, missing values, and what is said of files that are not there."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from kshot.tasks.cache import DataUnavailable
from kshot.tasks.ucr import FEW_SHOT_SETS, prepare, ucr

REAL = Path(os.environ.get("KSHOT_DATA") or "/nowhere")
real = pytest.mark.skipif(not (REAL / "ucr_fewshot").exists(), reason="needs ucr_fewshot in KSHOT_DATA")
SIZES = {  # classes, length, series, fewest of a class, as the archive lists them
    "ShapesAll": (60, 512, 1200, 20),
    "FiftyWords": (50, 270, 905, 6),
    "Adiac": (37, 176, 781, 20),
    "GestureMidAirD1": (26, 360, 338, 13),
    "Fungi": (18, 201, 204, 8),
    "SwedishLeaf": (15, 128, 1125, 75),
    "FacesUCR": (14, 131, 2250, 48),
    "CricketX": (12, 300, 780, 65),
}


def write_tsv(folder: Path, name: str, part: str, rows: list[list[float]]) -> None:
    (folder / "ucr_fewshot" / name).mkdir(parents=True, exist_ok=True)
    lines = ("\t".join("NaN" if value != value else str(value) for value in row) for row in rows)
    (folder / "ucr_fewshot" / name / f"{name}_{part}.tsv").write_text("\n".join(lines))


@real
@pytest.mark.parametrize("name", FEW_SHOT_SETS)
def test_sets_are_whole(name: str) -> None:
    data = ucr(name, REAL)
    classes, length, n, fewest = SIZES[name]
    assert tuple(data.x.shape) == (n, 1, length)
    assert data.x.dtype == torch.float32
    assert (len(data.classes), data.sizes.min()) == (classes, fewest)
    assert data.x.mean(2).abs().max() < 1e-4
    assert (data.x.std(2, correction=0) - 1).abs().max() < 1e-3


@real
def test_what_is_there_is_counted() -> None:
    stored = prepare(REAL)
    assert stored.classes == sum(size[0] for size in SIZES.values())
    assert stored.examples == sum(size[2] for size in SIZES.values())


def test_the_archive_s_own_files_are_read_and_short_series_stretched(tmp_path: Path) -> None:
    nan = float("nan")
    write_tsv(tmp_path, "Toy", "TRAIN", [[3, 0, 1, 2, 3, 4], [7, 0, 2, 4, nan, nan]])
    write_tsv(tmp_path, "Toy", "TEST", [[7, 5, 5, 5, 5, 5]])
    data = ucr("Toy", tmp_path)
    assert data.classes == ("Toy/3", "Toy/7")
    assert data.labels.tolist() == [0, 1, 1]
    line = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]) / 2**0.5
    torch.testing.assert_close(data.x[0, 0], line)
    torch.testing.assert_close(data.x[1, 0], line)  # 0, 2, 4 stretched to 0, 1, 2, 3, 4
    torch.testing.assert_close(data.x[2, 0], torch.zeros(5))


def test_gaps_and_empty_series_are_refused(tmp_path: Path) -> None:
    nan = float("nan")
    for name, row in (("Gap", [1, 0, nan, 2]), ("Empty", [1, nan, nan, nan])):
        write_tsv(tmp_path, name, "TRAIN", [row])
        write_tsv(tmp_path, name, "TEST", [[1, 1, 2, 3]])
        with pytest.raises(ValueError, match="NaN behind the end of a series only; found a gap"):
            ucr(name, tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataUnavailable, match=r"Adiac of the UCR archive is not in .*ucr_fewshot: place Adiac/Adiac_TRAIN"
    ):
        ucr("Adiac", tmp_path)
    (tmp_path / "ucr_fewshot").mkdir()
    np.savez(tmp_path / "ucr_fewshot" / "Adiac.npz", x_train=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"Adiac.npz is damaged .*Fetch it again"):
        ucr("Adiac", tmp_path)
    write_tsv(tmp_path, "Toy", "TRAIN", [[1, 2, 3]])
    write_tsv(tmp_path, "Toy", "TEST", [[1, 2, 3], [1, 2]])
    with pytest.raises(ValueError, match=r"Toy is damaged .*Fetch it again"):
        ucr("Toy", tmp_path)
