"""``config.json`` of a run: what it was told, and by which versions it was run."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from kshot import __version__
from kshot.checkpoint import write_atomically
from kshot.cli.learner_options import (
    DATA,
    ClassifierOptions,
    InContextOptions,
    LearnerOptions,
    MAMLOptions,
    MatchingOptions,
    ProtoMAMLOptions,
    PrototypicalOptions,
    RecurrentOptions,
    RelationOptions,
    ReptileOptions,
    RidgeOptions,
    SiameseOptions,
    SNAILOptions,
)

__all__ = ["data_name", "learner_name", "load_config", "picture_shape", "save_config", "versions"]

_LEARNERS: dict[str, type[LearnerOptions]] = {
    "prototypical": PrototypicalOptions,
    "matching": MatchingOptions,
    "siamese": SiameseOptions,
    "relation": RelationOptions,
    "ridge": RidgeOptions,
    "classifier": ClassifierOptions,
    "proto-maml": ProtoMAMLOptions,
    "maml": MAMLOptions,
    "reptile": ReptileOptions,
    "recurrent": RecurrentOptions,
    "snail": SNAILOptions,
    "in-context": InContextOptions,
}


def learner_name(options: LearnerOptions) -> str:
    """Return the name of the learner on the command line."""
    return next(name for name, kind in _LEARNERS.items() if kind is type(options))


def save_config(folder: Path, options: LearnerOptions, picture: Sequence[int] | None) -> None:
    """Write down the options of a run, and the shape of its pictures, whose data need not be there when it is used."""
    told = {name: value for name, value in asdict(options).items() if name != "out"}  # the folder may be moved
    told["data"] = data_name(options)
    if options.encoder_from is not None:
        told["encoder_from"] = str(Path(options.encoder_from).absolute())
    content = {"learner": learner_name(options), "options": told, "picture": picture, "versions": versions()}
    write_atomically(folder / "config.json", json.dumps(content, indent=2).encode())


def data_name(options: LearnerOptions) -> str:
    """Return the name of a run's data, or their folder by a path that holds from everywhere."""
    return options.data if options.data in DATA else str(Path(options.data).absolute())


def versions() -> dict[str, str]:
    """Return by what a run is run."""
    return {"kshot": __version__, "torch": torch.__version__, "python": platform.python_version()}


def picture_shape(folder: Path) -> torch.Size | None:
    """Return the shape of the pictures of a run, of which there is none for sine waves."""
    told = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("picture")
    return None if told is None else torch.Size(told)


def load_config(folder: Path) -> LearnerOptions:
    """Read the options of a run.

    Raises:
        ValueError: the folder is no run of kshot.
    """
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _LEARNERS[content["learner"]](**content["options"])
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is not a run folder: its config.json cannot be read ({error}).") from error
