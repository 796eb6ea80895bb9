"""Fitted models on the command line: what a user's files hold, and the encoder of a run."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from kshot.checkpoint import write_atomically
from kshot.cli.build import build_learner, load_best
from kshot.cli.build_tasks import picture_of
from kshot.cli.run_config import load_config, picture_shape
from kshot.estimators import FewShotClassifier, PictureFormat
from kshot.tasks.files import picture_files

__all__ = ["encoder_of", "is_model", "labelled_examples", "load_model", "read_table", "save_model", "unlabelled_table"]

_PICTURES_OF_INK = ("omniglot", "glyphs")


def is_model(folder: Path) -> bool:
    """Say whether a folder holds a fitted model."""
    return (folder / "model.safetensors").is_file()


def labelled_examples(path: Path, label: str, model: FewShotClassifier | None = None) -> tuple[Any, list[str]]:
    """Return examples and a class each: of a folder with one folder of pictures for each class, or of a table.

    Args:
        path: of the folder or table.
        label: the column of the table that holds the class.
        model: the one that will read them, where there is one already.

    Raises:
        ValueError: the path is neither, the table lacks the label column, or nothing is in it.
    """
    if path.is_dir():
        files, labels = zip(*picture_files(path), strict=True)
        return list(files), list(labels)
    table = read_table(path, label, model)
    if label not in table.columns:
        raise ValueError(
            f"{path} has no column {label!r}; found {', '.join(table.columns)}. Name the class column with --label."
        )
    if missing := [int(row) + 1 for row in np.flatnonzero(table[label].str.strip() == "")]:
        raise ValueError(
            f"{len(missing)} rows of {path} have no {label}, first {missing[:5]}. Fill it in, or leave them out."
        )
    if len(table.columns) == 1:
        raise ValueError(f"{path} has the column {label} alone; expected what tells the classes apart beside it.")
    return unlabelled_table(table.drop(columns=label)), table[label].tolist()


def read_table(path: Path, label: str, model: FewShotClassifier | None = None) -> Any:
    """Read a csv table with a header, whose labels are words even where they look like numbers.

    So is what the model has as words: a row is read alike whatever rows stand beside it.

    Raises:
        ValueError: it is no such table, or has no rows.
        ImportError: pandas is not installed.
    """
    if path.suffix.lower() != ".csv":
        raise ValueError(f"expected a folder of class folders, or a .csv table; found {path}.")
    try:
        import pandas
    except ImportError as error:
        raise ImportError("tables are read by pandas: pip install 'kshot[sklearn]'") from error
    try:
        table = pandas.read_csv(path, dtype={label: str})
        words = pandas.read_csv(path, dtype=str, keep_default_na=False)  # in which None is a word as any other
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a csv table with a header ({error}).") from error
    if not len(table):
        raise ValueError(f"{path} has a header and no rows.")
    of_words = [
        name
        for name in table.columns
        if name == label
        or table[name].dtype.kind not in "biuf"
        or (model is not None and model.features_.reads_words(name))
    ]
    table[of_words] = words[of_words]
    return table


def unlabelled_table(table: Any) -> Any:
    """Return a column of texts as a list, and any other table as it is."""
    if len(table.columns) == 1 and table.iloc[:, 0].dtype.kind not in "biuf":
        return [str(text) for text in table.iloc[:, 0]]
    return table


def encoder_of(name: str | None) -> tuple[Any, PictureFormat | None]:
    """Return what ``--encoder`` names: of a run its learner, else the name itself."""
    if name is None or not (Path(name) / "config.json").is_file() or not (Path(name) / "best.safetensors").is_file():
        return name, None
    options = load_config(Path(name))
    picture = picture_shape(Path(name)) or picture_of(options)  # of the data, for a run before it was written down
    if picture is None:
        raise ValueError(f"{name} learned sine waves; an encoder of examples comes from a run on pictures.")
    (channels, size, _), learner = picture, load_best(Path(name), options, picture=picture)
    drawing = options.data in _PICTURES_OF_INK
    return learner, PictureFormat(size, "L" if channels == 1 else "RGB", drawing)


def save_model(model: FewShotClassifier, folder: Path, run: Path | None) -> None:
    """Save a model, with what its module was built from where it came from a run."""
    built = None if run is None else (run / "config.json").read_bytes()
    model.save(folder)  # first: where it fails, the model that was there is whole
    if built is None:
        (folder / "config.json").unlink(missing_ok=True)  # of the model that was written over
    else:
        write_atomically(folder / "config.json", built)


def load_model(folder: Path) -> FewShotClassifier:
    """Load a model that ``kshot fit`` saved.

    Raises:
        ValueError: the folder holds none, or a damaged one.
    """
    if not is_model(folder):
        if (folder / "best.safetensors").is_file():
            made = f"kshot fit FOLDER --encoder {folder} --out my-model"
            raise ValueError(f"{folder} is a run of kshot train, no fitted model; fit one: {made}")
        raise ValueError(f"{folder} holds no fitted model; make one: kshot fit FOLDER --out {folder}")
    if not (folder / "config.json").is_file():
        return FewShotClassifier.load(folder)
    # The learner is built for the pictures that it was trained on, whose data need not be here.
    record = FewShotClassifier.describe(folder)
    picture = PictureFormat(**record["picture"])
    shape = torch.Size((1 if picture.mode == "L" else 3, picture.size, picture.size))
    learner = build_learner(load_config(folder), picture=shape)
    return FewShotClassifier.load(folder, learner)
