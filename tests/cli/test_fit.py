"""kshot fit, predict, add, export, and eval of a fitted model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kshot.estimators import FewShotClassifier
from kshot.tasks.glyphs import glyphs

Kshot = Callable[..., Any]  # the fixture of conftest.py
TEXTS = """text,label
where is my card,card
"my card, has it come?",card
I forgot my password,password
reset the password please,password
"""
NUMBERS = "size,weight,label\n1,2,a\n1.1,2,a\n9,8,b\n9,8.1,b\n"


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    data = glyphs("test")
    for c in (0, 1, 2):
        (tmp_path / "drawings" / f"letter{c}").mkdir(parents=True)
        for i, picture in enumerate(data.x[data.labels == c][:6]):
            Image.fromarray(255 - picture[0].numpy()).save(tmp_path / "drawings" / f"letter{c}" / f"{i}.png")
    return tmp_path / "drawings"


@pytest.fixture
def run(kshot: Kshot, tmp_path: Path) -> Path:
    small = ("--filters", "8", "--val-tasks", "2", "--queries", "2", "--steps", "2", "--train-ways", "5")
    ran = kshot("train", "prototypical", *small, "--train-queries", "2", "--out", tmp_path / "run")
    assert ran.code == 0, ran.err
    return tmp_path / "run"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "texts.csv").write_text(TEXTS)
    return tmp_path / "texts.csv"


def test_what_is_said_of_tasks_is_refused_for_a_fitted_model(kshot: Kshot, texts: Path, tmp_path: Path) -> None:
    told = {"--ways": 5, "--shots": 1, "--queries": 2, "--tasks": 3, "--inner-steps": 4}
    for option, number in told.items():
        assert f"{option}: a fitted model is judged on all" in kshot("eval", tmp_path, texts, option, number).err


def test_texts_from_a_table_to_answers_and_new_classes(kshot: Kshot, texts: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    ran = kshot("fit", texts, "--out", model)
    assert ran.code == 0, ran.err
    assert "2 classes, 2 examples each" in ran.out
    assert "on 4 held-out examples, choice included" in ran.out.replace("\n", " ")
    ran = kshot("predict", model, "has my card come", "the password")
    assert [line.split()[-3:-2] for line in ran.out.splitlines()[1:]] == [["card"], ["password"]], ran.out
    ran = kshot("add", model, "--label", "rates", "what is the exchange rate")
    assert "rates: 1 examples; 3 classes" in ran.out, ran.err
    assert "rates" in kshot("predict", model, "exchange rate today").out
    ran = kshot("eval", model, texts)
    assert "accuracy 100.00 %" in ran.out, ran.err
    assert "4 examples" in ran.out
    (tmp_path / "note.txt").write_text("today's exchange rate\n")
    assert "rates" in kshot("predict", model, tmp_path / "note.txt").out


@pytest.mark.filterwarnings("ignore:pictures are compared as tiny pictures")
def test_pictures_from_a_folder(kshot: Kshot, drawings: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    assert kshot("fit", drawings, "--out", model, "--method", "nearest-mean").code == 0
    ran = kshot("eval", model, drawings)
    assert "letter2" in ran.out
    assert "18 examples" in ran.out
    ran = kshot("predict", model, drawings / "letter1" / "0.png")
    assert "letter1" in ran.out
    assert "%" in ran.out
    assert "no such file" in kshot("predict", model, "gone.png").err
    assert "found folders" in kshot("predict", model, drawings / "letter1").err


@pytest.mark.filterwarnings("ignore:pictures are compared as tiny pictures")
def test_an_encoder_or_a_whole_learner_of_a_run(kshot: Kshot, drawings: Path, run: Path, tmp_path: Path) -> None:
    assert f"kshot fit FOLDER --encoder {run}" in kshot("predict", run, drawings / "letter0" / "1.png").err
    for method in ("nearest-mean", "own"):
        model = tmp_path / method
        ran = kshot("fit", drawings, "--encoder", run, "--method", method, "--out", model)
        assert ran.code == 0, ran.err
        assert "18 examples" in kshot("eval", model, drawings).out
        assert "letter" in kshot("predict", model, drawings / "letter0" / "1.png").out
        assert "stands in two classes" in kshot("add", model, "--label", "new", drawings / "letter0" / "1.png").err
        Image.open(drawings / "letter0" / "1.png").rotate(180).save(tmp_path / "new.png")
        added = kshot("add", model, "--label", "new", tmp_path / "new.png")
        assert "new: 1 examples; 4 classes" in added.out, added.err
    ran = kshot("fit", drawings, "--out", tmp_path / "own", "--overwrite")  # no encoder of a run any more
    assert ran.code == 0, ran.err
    assert "18 examples" in kshot("eval", tmp_path / "own", drawings).out
    ran = kshot("fit", drawings, "--method", "own", "--out", tmp_path / "other")
    assert "one of nearest-mean, ridge, linear-probe for tiny pictures" in ran.err
    assert not (tmp_path / "other").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's exporter
def test_numbers_and_their_onnx(kshot: Kshot, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    table, model = tmp_path / "numbers.csv", tmp_path / "model"
    table.write_text(NUMBERS)
    assert kshot("fit", table, "--out", model, "--threshold", "0.05").code == 0
    asked = tmp_path / "asked.csv"
    for rows in ("size,weight\n1,2\n9,8\n500,-500\n", "size,weight,label\n1,2,a\n9,8,\n500,-500,b\n"):
        asked.write_text(rows)
        lines = kshot("predict", model, asked).out.splitlines()[1:]
        assert [line.split()[2] for line in lines] == ["a", "b", "none"], lines
    ran = kshot("export", model, "--out", tmp_path / "model.onnx", "--example", table)
    assert ran.code == 0, ran.err
    assert ran.out == f"{tmp_path / 'model.onnx'}: input x, outputs probabilities and none\n"
    assert (tmp_path / "model.onnx").stat().st_size > 100


def test_nothing_but_a_fitted_model_is_written_over(kshot: Kshot, drawings: Path, texts: Path, run: Path) -> None:
    before = (run / "config.json").read_bytes()
    assert "is no fitted model" in kshot("fit", drawings, "--encoder", run, "--out", run, "--overwrite").err
    assert "is no fitted model" in kshot("fit", texts, "--out", run, "--overwrite").err
    assert (run / "config.json").read_bytes() == before


@pytest.mark.filterwarnings("ignore:pictures are compared as tiny pictures")
def test_a_model_that_cannot_be_saved_leaves_the_one_before(
    kshot: Kshot, drawings: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    assert kshot("fit", drawings, "--encoder", run, "--out", model).code == 0

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert "No space left" in kshot("fit", drawings, "--out", model, "--overwrite").err
    assert "18 examples" in kshot("eval", model, drawings).out


def test_a_fit_that_could_not_be_saved_is_done_again(
    kshot: Kshot, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert "Free some space, then go on." in kshot("fit", texts, "--out", model).err
    (model / "model.safetensors.1.part").write_bytes(b"of a process that was killed")
    ran = kshot("fit", texts, "--out", model)
    assert ran.code == 0, ran.err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    assert "is there already" in kshot("fit", texts, "--out", tmp_path / "other").err


def test_words_that_pandas_takes_for_nothing_are_words(kshot: Kshot, tmp_path: Path) -> None:
    table, model = tmp_path / "table.csv", tmp_path / "model"
    table.write_text("text,label\nnull,None\nnothing at all,None\nhello there,NA\ngood morning,NA\n")
    assert "2 classes, 2 examples each" in kshot("fit", table, "--out", model).out
    assert "None" in kshot("eval", model, table).out


def test_classes_that_are_numbers_are_judged_by_a_table(kshot: Kshot, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("size,label\n1,0\n2,0\n8,1\n9,1\n")
    pandas = pytest.importorskip("pandas")
    FewShotClassifier().fit(pandas.DataFrame({"size": [1, 2, 8, 9]}), [0, 0, 1, 1]).save(tmp_path / "model")
    ran = kshot("eval", tmp_path / "model", table)
    assert "accuracy 100.00 %" in ran.out, ran
    assert "not among" not in ran.out


def test_a_row_is_read_alike_whatever_rows_stand_beside_it(kshot: Kshot, tmp_path: Path) -> None:
    table, model, asked = tmp_path / "table.csv", tmp_path / "model", tmp_path / "asked.csv"
    table.write_text("size,weight,label\n036,1,a\n036,1,a\nXL,1,b\nXL,1,b\n")
    assert kshot("fit", table, "--out", model, "--method", "nearest-mean").code == 0
    for rows in ("036,1\nXL,1\n", "036,1\n", "036,1\n,1\n"):
        asked.write_text(f"size,weight\n{rows}")
        assert kshot("predict", model, asked).out.splitlines()[1].split() == ["row", "1", "a", "83", "%"], rows
    asked.write_text("size,weight,label\n036,1,a\n036,1,a\n")
    assert "accuracy 100.00 %" in kshot("eval", model, asked).out


def test_texts_that_look_like_numbers_are_texts_to_a_model_of_texts(kshot: Kshot, texts: Path, tmp_path: Path) -> None:
    model, asked = tmp_path / "model", tmp_path / "asked.csv"
    assert kshot("fit", texts, "--out", model).code == 0
    asked.write_text("text\n12\n")
    assert kshot("predict", model, asked).code == 0


def test_a_table_is_never_read_as_one_text(kshot: Kshot, texts: Path, tmp_path: Path) -> None:
    model, table = tmp_path / "model", texts.rename(tmp_path / "TEXTS.CSV")
    assert kshot("fit", table, "--out", model).code == 0
    assert "row 4" in kshot("predict", model, table).out
    assert (
        "expected one .csv table and nothing beside it; found 2 names"
        in kshot("predict", model, "has my card come", table).err
    )
    assert "expected one .csv table and nothing beside it; found 2 names" in kshot("predict", model, table, table).err


def test_a_folder_with_too_few_classes_leaves_no_run(kshot: Kshot, drawings: Path, tmp_path: Path) -> None:
    ran = kshot("train", "prototypical", "--data", drawings, "--ways", "2", "--queries", "1", "--out", tmp_path / "run")
    assert ran.code == 1
    assert "a task needs 2 classes; found 1 in val of random classes" in ran.err
    assert not (tmp_path / "run").exists()


def test_mistakes_are_told_in_a_line_and_leave_nothing_behind(kshot: Kshot, texts: Path, tmp_path: Path) -> None:
    model, bad, lacking = tmp_path / "model", tmp_path / "bad.csv", tmp_path / "lacking.csv"
    told: dict[str, tuple[Any, ...]] = {
        "no column 'intent'": ("fit", texts, "--out", model, "--label", "intent"),
        "expected a folder of class folders": ("fit", tmp_path / "gone", "--out", model),
        "no pictures found": ("fit", tmp_path, "--out", model),
        "texts are empty": ("fit", bad, "--out", model),
        "1 rows of": ("fit", lacking, "--out", model),
        "gone/nothing is no folder here": ("fit", texts, "--out", model, "--encoder", "gone/nothing"),
        "holds no fitted model": ("predict", tmp_path, "a text"),
    }
    bad.write_text("text,label\nwords,a\n,b\n")
    lacking.write_text("text,label\nwords,\nothers,b\n")
    for words, args in told.items():
        ran = kshot(*args)
        assert ran.code == 1, (args, ran)
        assert words in ran.err, (args, ran)
        assert not model.exists()
    assert kshot("fit", texts, "--out", model).code == 0
    before = (model / "model.safetensors").read_bytes()
    assert "there is no file question.txt" in kshot("predict", model, "question.txt").err
    assert "--overwrite" in kshot("fit", texts, "--out", model).err
    assert (model / "model.safetensors").read_bytes() == before
    assert FewShotClassifier.load(model).classes_.tolist() == ["card", "password"]
