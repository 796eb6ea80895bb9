from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kshot.tasks.files import centre_square
from kshot.tasks.labelled import LabelledData, Splits, check_disjoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in (("cat", 255), ("dog", 0)):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (40, 30), (colour, 0, 10 * i)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_a_folder_of_class_folders(folder: Path) -> None:
    data = LabelledData.from_folder(folder, size=16)
    assert data.x.shape == (6, 3, 16, 16)
    assert data.x.dtype == torch.uint8
    assert data.classes == ("cat", "dog")
    assert data.x[data.labels == 0][:, 0].unique().tolist() == [255]
    assert LabelledData.from_folder(folder, 8, "L").x.shape == (6, 1, 8, 8)


def test_files_that_are_no_pictures_are_named(folder: Path) -> None:
    (folder / "cat" / "notes.txt").write_text("not a picture")
    whole = (folder / "dog" / "1.png").read_bytes()
    (folder / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "dog" / ".hidden").write_text("left alone")
    with pytest.raises(ValueError, match=r"2 files .* cat/notes.txt, dog/cut.png") as caught:
        LabelledData.from_folder(folder)
    assert "skip_unreadable=True" in str(caught.value)
    assert len(LabelledData.from_folder(folder, skip_unreadable=True).x) == 6


def test_a_class_of_which_nothing_can_be_read_is_named(folder: Path) -> None:
    (folder / "bird").mkdir()
    with pytest.raises(ValueError, match=r"are empty: bird\. Add pictures"):
        LabelledData.from_folder(folder)
    (folder / "bird" / "cut.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no picture of bird under"):
        LabelledData.from_folder(folder, skip_unreadable=True)


def test_pictures_are_read_as_one_sees_them() -> None:
    ink = np.full((8, 8), 255, np.uint8)
    ink[:, :3] = np.arange(8)[:, None]  # dark on the left
    seen = centre_square(Image.fromarray(ink), 8, "L")
    transparent = Image.fromarray(np.stack([np.zeros((8, 8)), 255 - ink], -1).astype(np.uint8), "LA")
    turned = Image.fromarray(np.rot90(ink).copy())
    turned.getexif()[0x0112] = 6  # to be turned right to be upright
    for same in (Image.fromarray(ink.astype(np.uint16) * 257), transparent, turned):
        assert np.array_equal(centre_square(same, 8, "L"), seen), same.mode
    with pytest.raises(ValueError, match=r"32 bits \(mode F\)"):
        centre_square(Image.fromarray(ink.astype(np.float32)), 8, "L")


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        LabelledData.from_folder(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no pictures found"):
        LabelledData.from_folder(tmp_path)


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "irises.csv"
    path.write_text("length,kind,width\n1.5,setosa,2\n3,virginica,4\n")
    data = LabelledData.from_csv(path, label="kind")
    assert data.x.tolist() == [[1.5, 2], [3, 4]]
    assert data.classes == ("setosa", "virginica")
    with pytest.raises(ValueError, match="no column 'label'; found length, kind, width"):
        LabelledData.from_csv(path)
    path.write_text("length,label\n1.5,a\nlong,b\n")
    with pytest.raises(ValueError, match="line 3, column 'length': expected a number; found 'long'"):
        LabelledData.from_csv(path)
    path.write_text("length,label\nnan,a\n1,b\n")
    with pytest.raises(ValueError, match="NaN or infinity in 1 examples"):
        LabelledData.from_csv(path)
    for rows, message in (
        ("2,3,a", "line 2: expected 2 cells"),
        ("\n\n2", "line 4: expected 2 cells"),
        ("2", "line 2: expected 2 cells"),
        ("2,", "line 2 has no label"),
    ):
        path.write_text(f"length,label\n{rows}\n1,b\n")
        with pytest.raises(ValueError, match=message):
            LabelledData.from_csv(path)
    path.write_text("length,length,label\n1,2,a\n")
    with pytest.raises(ValueError, match="two columns of one name"):
        LabelledData.from_csv(path)
    path.write_text("label\na\nb\n")
    with pytest.raises(ValueError, match="the column label alone"):
        LabelledData.from_csv(path)
    path.write_bytes("length,label\n1,à\n2,b\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"irises\.csv is not encoded as UTF-8"):
        LabelledData.from_csv(path)
    path.write_text("label,length\na,1\nb,2\n", encoding="utf-8-sig")  # as spreadsheets save it
    assert LabelledData.from_csv(path).classes == ("a", "b")
    path.write_text("length,label\n")
    with pytest.raises(ValueError, match="no rows"):
        LabelledData.from_csv(path)


def two_classes(x: torch.Tensor) -> LabelledData:
    return LabelledData(x, torch.tensor([0, 1]), ("a", "b"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: two_classes(torch.tensor([[0.0], [float("nan")]])), r"NaN or infinity in 1 examples, first \[1\]"),
        (lambda: two_classes(torch.zeros(2, 1, dtype=torch.int64)), "must be uint8 or floats; found torch.int64"),
        (lambda: LabelledData(torch.zeros(2, 1), torch.tensor([0]), ("a",)), r"int64 of shape \(2,\)"),
        (lambda: LabelledData(torch.zeros(2, 1), torch.tensor([0, 3]), ("a", "b")), r"labels must lie in 0 \.\. 1"),
        (lambda: LabelledData(torch.zeros(2, 1), torch.tensor([0, 0]), ("a", "empty")), "none found for empty"),
        (lambda: two_classes(torch.zeros(2, 5)).with_rotations("classes"), r"square pictures .* found x \(2, 5\)"),
        (lambda: two_classes(torch.zeros(2, 1, 3, 4)).with_rotations("classes"), "square pictures"),
    ],
)
def test_bad_data_is_refused(make: Callable[[], LabelledData], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_subset_and_split_by_class() -> None:
    data = LabelledData.from_arrays(np.arange(40)[:, None], np.arange(40) % 10)
    part = data.subset([7, 2], split="mine")
    assert part.classes == ("7", "2")
    assert part.x[part.labels == 0].flatten().tolist() == [7, 17, 27, 37]
    assert part.stamp["split"] == "mine"
    whole = part.joined(data.subset([1]), split="both")
    assert whole.classes == ("7", "2", "1")
    assert whole.x[whole.labels == 2].flatten().tolist() == [1, 11, 21, 31]
    with pytest.raises(ValueError, match="share 1: 7"):
        part.joined(data.subset([7]))
    splits = data.split(val=0.2, test=0.3)
    assert [len(part.classes) for part in splits] == [5, 2, 3]
    assert check_disjoint(splits) is splits
    assert splits.test.classes == data.split(val=0.2, test=0.3).test.classes
    with pytest.raises(ValueError, match="train and test share 1: 7"):
        check_disjoint(Splits(data.subset([7]), data.subset([1]), data.subset([7])))


def test_mirrored_classes_are_classes_of_their_own() -> None:
    data = LabelledData.from_arrays(torch.arange(8.0).reshape(2, 1, 2, 2), ["a", "b"]).with_rotations("classes")
    both = data.with_mirrored_classes()
    assert both.classes == ("a", "b", "a mirrored", "b mirrored")
    assert both.rotations == "classes"
    assert both.stamp["mirrored"] == "classes"
    assert torch.equal(both.x[2:], data.x.flip(-1))
    assert both.labels.tolist() == [0, 1, 2, 3]
    assert both.groups is None
    grouped = replace(data, groups=("one", "two")).with_mirrored_classes()
    assert grouped.groups == ("one", "two", "one mirrored", "two mirrored")
    with pytest.raises(ValueError, match=r"mirroring needs pictures .* found x \(2, 3\)"):
        LabelledData.from_arrays(torch.zeros(2, 3), [0, 1]).with_mirrored_classes()


def test_what_cannot_be_joined_or_split_is_refused() -> None:
    rows = LabelledData.from_arrays(torch.rand(4, 3), ["a", "a", "b", "b"])
    bytes_ = LabelledData.from_arrays(torch.zeros(2, 3, dtype=torch.uint8), ["c", "d"])
    with pytest.raises(ValueError, match=r"one type and shape.*torch\.float32.*torch\.uint8"):
        rows.joined(bytes_)
    for shares in ((0.8, 0.4), (-0.1, 0.2)):
        with pytest.raises(ValueError, match="shares of the classes"):
            rows.split(*shares)
