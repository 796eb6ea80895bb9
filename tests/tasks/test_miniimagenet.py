import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from kshot.tasks.cache import DataUnavailable
from kshot.tasks.episodes import Episodes
from kshot.tasks.miniimagenet import miniimagenet, prepare

REAL = Path(os.environ.get("KSHOT_DATA") or "/nowhere", "miniimagenet")
real = pytest.mark.skipif(not (REAL / "index.json").exists(), reason="needs miniImageNet in KSHOT_DATA")
CLASSES = {"train": ("n03", "n01"), "val": ("n02",), "test": ("n05", "n04")}


def colour(name: str, number: int) -> tuple[int, int, int]:
    return (40 * int(name[1:]), 100 * number, 128)


def picture(name: str, number: int) -> Image.Image:
    return Image.new("RGB", (84, 84), colour(name, number))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "miniimagenet").mkdir()
    return tmp_path / "miniimagenet"


def as_folders(folder: Path) -> None:
    for part, names in CLASSES.items():
        for name in names:
            (folder / part / name).mkdir(parents=True)
            for number in range(2):
                picture(name, number).save(folder / part / name / f"{name}{number:08}.jpg", quality=95)
    (folder / "train" / "n01" / "Thumbs.db").write_bytes(b"not a picture")


def as_csv(folder: Path) -> None:
    (folder / "images").mkdir()
    for part, names in CLASSES.items():
        rows = [(f"{name}{number:08}.jpg", name, number) for name in names for number in range(2)]
        for file, name, number in rows:
            picture(name, number).save(folder / "images" / file, quality=95)
        lines = ["filename,label", *(f"{file},{name}" for file, name, _ in rows)]
        (folder / f"{part}.csv").write_text("\n".join(lines))


def as_mosaics(folder: Path) -> None:
    rows = []
    for part, names in CLASSES.items():
        for name in names:
            mosaic = Image.new("RGB", (2100, 2016))
            for number in range(2):
                mosaic.paste(picture(name, number), (84 * number, 0))
            mosaic.save(folder / f"{part}_{name}.webp", lossless=True, method=0)
            rows.append({"split": part, "wnid": name, "file": f"{part}_{name}.webp", "images": 2})
    (folder / "index.json").write_text(json.dumps({"tile": 84, "columns": 25, "rows": 24, "classes": rows}))


@pytest.mark.parametrize("layout", [as_folders, as_csv, as_mosaics])
def test_each_layout_gives_the_same_pictures(folder: Path, layout: object) -> None:
    assert callable(layout)
    layout(folder)
    assert prepare(folder.parent) == (folder, 5, 10)
    splits = miniimagenet(folder.parent)
    for part, names in CLASSES.items():
        data = getattr(splits, part)
        assert sorted(data.classes) == sorted(names)
        assert data.x.shape == (2 * len(names), 3, 84, 84)
        assert data.x.dtype == torch.uint8
        for row, label in enumerate(data.labels):
            expected = torch.tensor(colour(data.classes[label], row % 2))
            assert (data.x[row].float().mean((1, 2)) - expected).abs().max() < 3
        assert data.stamp["split"] == f"{part} of 2/1/2 classes"
    assert splits.test.stamp["pictures"] == ("recompressed mosaics" if layout is as_mosaics else "own files")
    assert Episodes(splits.train, ways=2, shots=1, queries=1)[0].support.x.shape == (2, 3, 84, 84)


def test_nothing_there_says_what_to_place_where(tmp_path: Path) -> None:
    with pytest.raises(
        DataUnavailable, match=r"not in .*miniimagenet, and its licence.*Place there images/\*\.jpg with"
    ):
        miniimagenet(tmp_path)


def test_a_missing_split_or_picture_is_named(folder: Path) -> None:
    as_csv(folder)
    (folder / "images" / "n0200000001.jpg").unlink()
    with pytest.raises(ValueError, match=r"n0200000001\.jpg is not a whole picture"):
        miniimagenet(folder.parent)
    (folder / "val.csv").unlink()
    with pytest.raises(ValueError, match=r"val\.csv is missing"):
        miniimagenet(folder.parent)
    (folder / "train.csv").write_text("name,class\na.jpg,n01\n")
    with pytest.raises(ValueError, match=r"train\.csv: expected the columns filename,label"):
        miniimagenet(folder.parent)


def test_a_class_in_two_splits_is_named(folder: Path) -> None:
    as_folders(folder)
    shutil.copytree(folder / "train" / "n01", folder / "test" / "n01")
    with pytest.raises(ValueError, match="train and test share 1: n01"):
        miniimagenet(folder.parent)


def test_a_damaged_mosaic_or_index_is_named(folder: Path) -> None:
    as_mosaics(folder)
    mosaic = folder / "val_n02.webp"
    mosaic.write_bytes(mosaic.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"val_n02\.webp is not a whole mosaic"):
        miniimagenet(folder.parent)
    Image.new("RGB", (84, 84)).save(mosaic)
    with pytest.raises(ValueError, match=r"val_n02\.webp is not a whole mosaic"):
        miniimagenet(folder.parent)
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | {"tile": 32}))
    with pytest.raises(ValueError, match=r"expected 25x24 tiles of 84 pixels; found \(32, 25, 24\)"):
        miniimagenet(folder.parent)
    (folder / "index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"index\.json is damaged"):
        miniimagenet(folder.parent)


@real
def test_the_real_index() -> None:
    assert prepare() == (REAL, 100, 60000)


@real
def test_real_mosaics(folder: Path) -> None:
    index = json.loads((REAL / "index.json").read_text())
    kept = [next(row for row in index["classes"] if row["split"] == part) for part in ("train", "val", "test")]
    (folder / "index.json").write_text(json.dumps(index | {"classes": kept}))
    for row in kept:
        (folder / row["file"]).symlink_to(REAL / row["file"])
    splits = miniimagenet(folder.parent)
    for data, row in zip(splits, kept, strict=True):
        assert data.classes == (row["wnid"],)
        assert np.array_equal(data.x.numpy().transpose(0, 2, 3, 1), tiles(REAL / row["file"]))


def tiles(path: Path) -> NDArray[np.uint8]:
    """Cut a mosaic as the notes beside the data say."""
    with Image.open(path) as mosaic:
        pixels = np.asarray(mosaic.convert("RGB"))
    return pixels.reshape(24, 84, 25, 84, 3).swapaxes(1, 2).reshape(600, 84, 84, 3)
