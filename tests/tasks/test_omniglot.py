import hashlib
import io
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from kshot.batching import unstack
from kshot.learners.metric.hausdorff import ModifiedHausdorff
from kshot.tasks import omniglot_pack
from kshot.tasks.cache import DataUnavailable
from kshot.tasks.episodes import Episodes
from kshot.tasks.omniglot import ProtocolName, Resize, lake_runs, omniglot, prepare
from kshot.tasks.omniglot_pack import Characters, pack, read_npz, unpack, vinyals_split
from kshot.tasks.omniglot_protocols import published_protocol
from kshot.tasks.omniglot_runs import Runs, pack_runs

REAL = Path(os.environ.get("KSHOT_DATA") or "/nowhere", "omniglot", "omniglot.npz")
RUNS = REAL.with_name("oneshot_runs.npz")
real = pytest.mark.skipif(not REAL.exists(), reason="needs Omniglot in KSHOT_DATA")
Drawings = Mapping[tuple[str, int, int], NDArray[np.uint8]]  # (alphabet, character, id) -> (20, 105, 105), 1 = ink


def real_characters() -> Characters:
    return Characters(*read_npz(REAL, Characters._fields))


def real_runs() -> Runs:
    return Runs(*read_npz(RUNS, Runs._fields))


def png(ink: NDArray[np.uint8]) -> bytes:
    """Encode as the official files are: one bit a pixel, ink black."""
    file = io.BytesIO()
    Image.fromarray(ink == 0).save(file, "PNG")
    return file.getvalue()


def write_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path


def official(part: str, drawings: Drawings) -> list[tuple[str, bytes]]:
    return [
        (f"images_{part}/{alphabet}/character{character:02}/{number:04}_{drawer:02}.png", png(ink))
        for (alphabet, character, number), drawn in drawings.items()
        for drawer, ink in enumerate(drawn, start=1)
    ]


def dots(number: int) -> NDArray[np.uint8]:
    """Twenty drawings that tell the character and the drawer apart by where their ink is."""
    ink = np.zeros((20, 105, 105), np.uint8)
    ink[:, number] = 1
    ink[np.arange(20), :, np.arange(20)] = 1
    return ink


BACKGROUND = {("Korean", 1, 7): dots(7), ("Greek", 2, 4): dots(4), ("Greek", 1, 3): dots(3)}
EVALUATION = {("Angelic", 1, 9): dots(9), ("ULOG", 3, 5): dots(5)}


@pytest.fixture
def archives(tmp_path: Path) -> tuple[Path, Path]:
    extra = [("images_background/.DS_Store", b""), ("__MACOSX/images_background/Greek/character01/._0003_01.png", b"")]
    return (
        write_zip(tmp_path / "images_background.zip", official("background", BACKGROUND) + extra),
        write_zip(tmp_path / "images_evaluation.zip", official("evaluation", EVALUATION)),
    )


def test_packing_puts_background_first_and_sorts(archives: tuple[Path, Path]) -> None:
    packed = pack(*archives)
    assert packed.alphabet_names.tolist() == ["Greek", "Korean", "Angelic", "ULOG"]
    assert packed.class_alphabet.tolist() == [0, 0, 1, 2, 3]
    assert packed.class_character.tolist() == [1, 2, 1, 1, 3]
    assert packed.class_id.tolist() == [3, 4, 7, 9, 5]
    assert packed.class_is_background.tolist() == [True, True, True, False, False]
    assert packed.class_vinyals_split.tolist() == [0, 0, 0, 0, 2]
    assert packed.images_packed.shape == (5, 20, 105, 14)
    for row, number in enumerate(packed.class_id):
        assert np.array_equal(unpack(packed.images_packed[row]), dots(int(number)))


def test_a_missing_drawing_is_named(tmp_path: Path, archives: tuple[Path, Path]) -> None:
    files = [file for file in official("background", BACKGROUND) if "Greek/character02/0004_07" not in file[0]]
    with pytest.raises(ValueError, match=r"images_background\.zip.*Greek/character02 lacks drawer 7"):
        pack(write_zip(archives[0], files), archives[1])


def test_a_truncated_or_wrong_archive_is_named(tmp_path: Path, archives: tuple[Path, Path]) -> None:
    background, evaluation = archives
    evaluation.write_bytes(evaluation.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"images_evaluation\.zip is damaged.*Delete it and run `kshot data omniglot`"):
        pack(background, evaluation)
    with pytest.raises(ValueError, match=r"expected ALPHABET/characterNN/NNNN_DD\.png inside"):
        pack(background, write_zip(evaluation, [("readme.txt", b"")]))
    with pytest.raises(ValueError, match="expected 105x105 pixels; found 28x28"):
        pack(background, write_zip(evaluation, official("evaluation", {("A", 1, 1): dots(1)[:, :28, :28]})))


def test_archives_placed_by_hand_are_packed_and_kept(
    archives: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "omniglot"
    folder.mkdir(parents=True)
    for archive in archives:
        archive.rename(folder / archive.name)
    monkeypatch.setenv("KSHOT_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"images_background\.zip is damaged or another file: expected md5:68d2"):
        prepare(tmp_path / "data")
    monkeypatch.setattr(omniglot_pack, "_ARCHIVES", {file.name: checksum(file) for file in sorted(folder.iterdir())})
    assert prepare(tmp_path / "data") == (folder / "omniglot.npz", 5, 100)
    assert sorted(file.name for file in folder.iterdir()) == [
        "images_background.zip",
        "images_evaluation.zip",
        "omniglot.npz",
    ]
    with pytest.raises(ValueError, match=r"not the whole of Omniglot: expected drawings \(1623.*found \(5, "):
        omniglot(root=tmp_path / "data")


def checksum(path: Path) -> str:
    return f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"


def test_fetched_archives_are_removed_once_packed(
    archives: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(urls: list[str], path: Path, checksum: str) -> Path:
        assert urls[0].endswith(f"/python/{path.name}")
        assert checksum.startswith("md5:6")
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(path.write_bytes((tmp_path / path.name).read_bytes()) and path)

    monkeypatch.setattr(omniglot_pack, "download", fetched)
    assert prepare(tmp_path / "data").examples == 100
    assert [file.name for file in (tmp_path / "data" / "omniglot").iterdir()] == ["omniglot.npz"]


def test_without_data_or_network_the_error_says_what_to_place_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KSHOT_OFFLINE", "1")
    with pytest.raises(
        DataUnavailable, match=r"images_background\.zip .*place it at .*omniglot.images_background\.zip"
    ):
        omniglot(root=tmp_path)
    with pytest.raises(DataUnavailable, match=r"all_runs\.zip .*place it at .*omniglot.all_runs\.zip"):
        lake_runs(root=tmp_path)


ALPHABETS = (*(f"B{i:02}" for i in range(25)), *omniglot_pack.VAL_ALPHABETS, *(f"E{i:02}" for i in range(20)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with as many characters as Omniglot; the left of each spells its number in binary."""
    images = np.zeros((1623, 20, 105, 14), np.uint8)
    numbers = np.arange(1623)
    images[:, :, :, 0], images[:, :, :, 1] = (numbers >> 8)[:, None, None], (numbers & 255)[:, None, None]
    images[:, 0, :, 2:] = np.random.default_rng(0).integers(256, size=(1623, 105, 12))
    alphabet = (numbers // 33).astype(np.int16)
    root = tmp_path_factory.mktemp("data")
    (root / "omniglot").mkdir()
    with (root / "omniglot" / "omniglot.npz").open("wb") as file:  # not compressed: that would take most of a second
        np.savez(
            file,
            images_packed=images,
            alphabet_names=np.array(ALPHABETS),
            class_alphabet=alphabet,
            class_character=(numbers % 33 + 1).astype(np.int16),
            class_id=np.arange(1, 1624, dtype=np.int16),
            class_is_background=alphabet < 30,
            class_vinyals_split=np.repeat(np.array([0, 1, 2], np.int8), [1028, 172, 423]),
        )
    return root


@pytest.mark.parametrize(
    ("protocol", "counts", "rotations"),
    [
        ("vinyals", (1028, 172, 423), ("classes", "classes", "classes")),
        ("finn", (1100, 100, 423), ("per_class", "per_class", "per_class")),
        ("reptile", (1100, 100, 423), ("classes", "none", "none")),
        ("relation", (1100, 100, 423), ("per_episode", "per_episode", "per_episode")),
        ("mamlpp", (1150, 50, 423), ("per_class", "none", "none")),
        ("mann", (1100, 100, 423), ("classes", "classes", "classes")),
    ],
)
def test_splits_rotations_and_pictures(
    whole: Path, protocol: ProtocolName, counts: tuple[int, ...], rotations: tuple[str, ...]
) -> None:
    side = 20 if protocol == "mann" else 28
    splits = omniglot(protocol, root=whole)
    for name, part, count, rotation in zip(splits._fields, splits, counts, rotations, strict=True):
        assert part.x.shape == (20 * count, 1, side, side)
        assert part.x.dtype == torch.uint8
        assert set(part.sizes.tolist()) == {20}
        assert len(part.classes) == count
        assert part.rotations == rotation
        assert part.stamp["data"] == "omniglot"
        assert part.stamp["split"].startswith(f"{name} of {protocol}: {counts[0]}/{counts[1]}/{counts[2]}")
        assert part.stamp["resize"] == f"{side}x{side} nearest"
        assert part.groups == tuple(name.partition("/")[0] for name in part.classes)
    assert sum(counts) == 1623 == len(set().union(*(part.classes for part in splits)))


def test_koch_and_lake_split_by_alphabet(whole: Path) -> None:
    lake = omniglot("lake", size=28, root=whole)
    assert [len(set(part.groups or ())) for part in lake] == [25, 5, 20]
    assert set(lake.val.groups or ()) == set(omniglot_pack.VAL_ALPHABETS)
    koch = published_protocol("koch")
    assert [len(range(20)[drawers]) for drawers in koch.drawers] == [12, 4, 4]
    assert koch.size == 105


def test_random_splits_share_their_test_characters_and_never_change(whole: Path) -> None:
    finn, mamlpp = omniglot("finn", root=whole), omniglot("mamlpp", root=whole)
    assert finn.test.classes == mamlpp.test.classes
    assert finn.test.classes[:3] == ("B00/character02", "B00/character05", "B00/character07")
    assert set(mamlpp.val.classes) < set(finn.val.classes)


def test_ink_polarity(whole: Path) -> None:
    assert omniglot("relation", root=whole).test.x.float().mean() < 100
    reptile = omniglot("reptile", root=whole).test
    assert reptile.x.float().mean() > 155
    assert set(reptile.x.unique().tolist()) == {0, 255}
    assert reptile.stamp["ink"] == "0 on paper 1"


def test_each_drawing_carries_its_own_name(whole: Path) -> None:
    test = omniglot("finn", size=105, root=whole).test
    bits = test.x[:, 0, 0, :16].bool().long()
    numbers = (bits * 2 ** torch.arange(15, -1, -1)).sum(1)
    names = [f"{ALPHABETS[n // 33]}/character{n % 33 + 1:02}" for n in numbers.tolist()]
    assert names == [test.classes[label] for label in test.labels]


def test_loading_again_is_cheap_and_a_replaced_file_is_read_again(whole: Path) -> None:
    first = omniglot("finn", root=whole)
    assert omniglot("finn", root=whole) is first
    path = whole / "omniglot" / "omniglot.npz"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    assert omniglot("finn", root=whole) is not first


def test_sizes_out_of_range(whole: Path) -> None:
    for size in (0, 106):
        with pytest.raises(ValueError, match=f"size must lie in 1 .. 105; found {size}"):
            omniglot(size=size, root=whole)
    with pytest.raises(ValueError, match=r"protocol must be one of 'vinyals', 'finn'.*found 'maml'"):
        published_protocol("maml")


def test_a_truncated_file_is_named(whole: Path, tmp_path: Path) -> None:
    content = (whole / "omniglot" / "omniglot.npz").read_bytes()
    path = tmp_path / "omniglot" / "omniglot.npz"
    path.parent.mkdir()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for damaged in (content[:middle], content[:10], b"", flipped):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"omniglot\.npz is damaged.*Delete it and run `kshot data omniglot`"):
            omniglot(root=tmp_path)


@pytest.mark.parametrize(("resize", "mode"), [("nearest", "1"), ("antialiased", "L")])
@pytest.mark.parametrize("side", [20, 28])
def test_resizing_equals_pillow(whole: Path, resize: Resize, mode: str, side: int) -> None:
    test = omniglot("vinyals", resize, side, root=whole).test
    [packed] = read_npz(whole / "omniglot" / "omniglot.npz", ["images_packed"])
    for row, drawn in enumerate(unpack(packed[-423::40, 0])):
        picture = Image.fromarray(drawn * np.uint8(255)).convert(mode)
        expected = picture.resize((side, side), Image.Resampling.BILINEAR).convert("L")
        difference = test.x[20 * 40 * row, 0].int().numpy() - np.asarray(expected, np.int32)
        assert np.abs(difference).max() <= (1 if resize == "antialiased" else 0)  # Pillow rounds between its two passes


@real
def test_the_vinyals_rule_equals_the_published_lists() -> None:
    packed = real_characters()
    rows = zip(packed.alphabets, packed.class_character, packed.class_is_background, strict=True)
    rule = [vinyals_split(str(alphabet), int(character), bool(background)) for alphabet, character, background in rows]
    assert np.array_equal(rule, packed.class_vinyals_split)
    assert np.bincount(rule).tolist() == [1028, 172, 423]


@real
def test_real_pictures_packed_again_are_identical(tmp_path: Path) -> None:
    packed = real_characters()
    parts = []
    for name in ("Tagalog", "Tibetan"):
        rows = np.flatnonzero(packed.alphabets == name)
        drawn = {
            (name, int(packed.class_character[row]), int(packed.class_id[row])): unpack(packed.images_packed[row])
            for row in rows[::-1]
        }
        parts.append(write_zip(tmp_path / f"{name}.zip", official(name, drawn)))
    again = pack(*parts)
    rows = np.flatnonzero(np.isin(packed.alphabets, ["Tagalog", "Tibetan"]))
    for field, array in again._asdict().items():
        original = getattr(packed, field)
        if field.startswith(("class_i", "class_v", "class_c", "images")):
            assert np.array_equal(array, original[rows])
            assert array.dtype == original.dtype
    assert np.array_equal(again.alphabets, packed.alphabets[rows])


@real
def test_the_official_files_have_our_fields() -> None:
    for path, fields in ((REAL, Characters._fields), (RUNS, Runs._fields)):
        with np.load(path) as arrays:
            assert arrays.files == list(fields)


@real
def test_real_protocols() -> None:
    koch = omniglot("koch")
    assert [part.x.shape[0] for part in koch] == [964 * 12, 277 * 4, 382 * 4]
    assert [len(set(part.groups or ())) for part in koch] == [30, 10, 10]
    task = Episodes(koch.test, ways=20, shots=1, queries=1, within_groups=True)[0]
    assert task.support.x.shape == (20, 1, 105, 105)
    vinyals = omniglot()
    packed = real_characters()
    assert vinyals.test.classes[:2] == ("Gurmukhi/character42", "Gurmukhi/character43")
    kept = np.floor((np.arange(28) + 0.5) * 105 / 28).astype(int)
    first = unpack(packed.images_packed[packed.class_vinyals_split == 2][0, 3])
    assert np.array_equal(vinyals.test.x[3, 0].numpy(), first[np.ix_(kept, kept)] * 255)
    assert Episodes(vinyals.test, ways=5, shots=1).stamp["rotations"] == "classes"


@real
def test_the_modified_hausdorff_distance_errs_on_38_8_percent_of_the_lake_runs() -> None:
    """The published figure, which holds only if pictures, answers and the distance are all as they should be."""
    learner, runs = ModifiedHausdorff(), unstack(lake_runs())
    accuracy = [
        learner.loss.metric(logits, run.query.y) for logits, run in zip(learner.predictions(runs), runs, strict=True)
    ]
    assert torch.stack(accuracy).mean().item() == pytest.approx(245 / 400)


@real
def test_lake_runs_agree_with_the_classes() -> None:
    episode = lake_runs()
    runs, packed = real_runs(), real_characters()
    assert episode.support.x.shape == episode.query.x.shape == (20, 20, 1, 105, 105)
    assert torch.equal(episode.support.y, torch.eye(20).expand(20, 20, 20))
    answers = np.take_along_axis(runs.train_class, episode.query.y.argmax(-1).numpy(), 1)
    assert np.array_equal(answers, runs.test_class)
    drawn = unpack(packed.images_packed[runs.test_class, runs.test_drawer - 1])
    assert np.array_equal(episode.query.x[:, :, 0].numpy(), drawn)


@real
def test_the_official_runs_packed_again_are_identical(tmp_path: Path) -> None:
    original, packed = real_runs(), real_characters()
    files = []
    for run in range(20):
        folder = f"run{run + 1:02}"
        for kind, drawings in (("training/class", original.train_packed), ("test/item", original.test_packed)):
            files += [(f"{folder}/{kind}{item + 1:02}.png", png(unpack(drawings[run, item]))) for item in range(20)]
        answers = [
            f"{folder}/test/item{item + 1:02}.png {folder}/training/class{label + 1:02}.png"
            for item, label in enumerate(original.test_label[run])
        ]
        files.append((f"{folder}/class_labels.txt", "\n".join(answers).encode()))
    again = pack_runs(write_zip(tmp_path / "all_runs.zip", files), packed)
    for field, array in again._asdict().items():
        assert array.dtype == getattr(original, field).dtype
        assert np.array_equal(array, getattr(original, field))
