"""Fitted models in files, without pickle."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from kshot.checkpoint import load_checkpoint, save_checkpoint
from kshot.core import Learner
from kshot.estimators.features import (
    Features,
    Numbers,
    Own,
    PretrainedPictures,
    PretrainedTexts,
    Thumbnails,
    Words,
    picture_features,
    sentence_features,
)
from kshot.estimators.fitted import FewShotEstimator
from kshot.estimators.methods import body_of
from kshot.estimators.pictures import PictureFormat
from kshot.estimators.tables import Table

__all__ = ["describe_estimator", "load_estimator", "save_estimator"]

_FILE = "model.safetensors"
Estimator = TypeVar("Estimator", bound=FewShotEstimator)


def save_estimator(model: FewShotEstimator, folder: Path, told: dict[str, Any]) -> None:
    """Write what both estimators keep, and what one of them tells beside."""
    content = {
        "estimator": type(model).__name__,
        "method": model.method,
        "features": _record(model.features_),
        "support": model.support_,
        "columns": {name: getattr(model, name) for name in ("n_features_in_",) if hasattr(model, name)},
        "names": list(getattr(model, "feature_names_in_", ())),
        "told": told,
    }
    save_checkpoint(folder / _FILE, content)


def load_estimator(kind: type[Estimator], folder: Path, module: nn.Module | None) -> tuple[Estimator, dict[str, Any]]:
    """Return an estimator with what both keep, and what it told beside.

    Raises:
        ValueError: the file is damaged or of another estimator, or the module is missing or of another build.
    """
    content = load_checkpoint(folder / _FILE)
    if content.get("estimator") != kind.__name__:
        raise ValueError(
            f"expected a saved {kind.__name__} in {folder}; found {content.get('estimator', 'a checkpoint')}."
        )
    features = _features(content["features"], module, folder)
    model = kind()
    model.method, model.encoder = content["method"], getattr(features, "source", module)
    model.features_, model.support_ = features, content["support"]
    for name, value in content["columns"].items():
        setattr(model, name, value)
    if content["names"]:
        model.feature_names_in_ = np.array(content["names"], dtype=object)
    return model, content["told"]


def describe_estimator(folder: Path) -> dict[str, Any]:
    """Return the method of a saved model, and the pictures that a module of one's own expects."""
    content = load_checkpoint(folder / _FILE)
    return {"method": content["method"], "picture": content["features"].get("picture")}


def _record(features: Features) -> dict[str, Any]:
    match features:
        case Numbers(table):
            return {"is": "numbers", "table": asdict(table)}
        case Words():
            return {"is": "words"}
        case Thumbnails():
            return {"is": "thumbnails"}
        case PretrainedTexts(source):
            return {"is": "texts", "source": source}
        case PretrainedPictures(source):
            return {"is": "pictures", "source": source}
        case Own(encoder, picture, table, as_it_is):
            tables = None if table is None else asdict(table)
            pictures = None if picture is None else asdict(picture)
            told = {"as_it_is": as_it_is, "whole": isinstance(encoder, Learner)}
            return {"is": "own", "picture": pictures, "table": tables, "weights": encoder.state_dict(), **told}
    raise TypeError(f"no record for {type(features).__name__}")


def _features(record: dict[str, Any], module: nn.Module | None, folder: Path) -> Features:
    match record["is"]:
        case "numbers":
            return Numbers(Table(**record["table"]))
        case "words":
            return Words()
        case "thumbnails":
            return Thumbnails()
        case "texts":
            return sentence_features(record["source"])
        case "pictures":
            return picture_features(record["source"])
    if module is None:
        raise ValueError(
            f"the model in {folder} was fitted with a module of your own: pass one of the same build, load(path, module)."
        )
    module = module if record["whole"] else body_of(module) or module
    try:
        module.load_state_dict(record["weights"])
    except RuntimeError as error:
        raise ValueError(f"the module does not fit the weights in {folder}: {error}") from error
    picture = None if record["picture"] is None else PictureFormat(**record["picture"])
    table = None if record["table"] is None else Table(**record["table"])
    return Own(module, picture, table, record["as_it_is"])
