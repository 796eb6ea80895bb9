"""Fitted models in files, without pickle."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from kshot.checkpoint import load_checkpoint, save_checkpoint
from kshot.core import Learner
from kshot.embeddings import weights_digest
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
    """Write what both estimators keep, and what one of them tells beside.

    Weights that gradient steps made are kept too: on another number of threads the same steps are rounded differently.
    """
    content = {
        "estimator": type(model).__name__,
        "method": model.method,
        "features": _record(model.features_),
        "support": model.support_,
        "columns": {name: getattr(model, name) for name in ("n_features_in_",) if hasattr(model, name)},
        "names": list(getattr(model, "feature_names_in_", ())),
        "state": model.state_ if isinstance(model.state_, dict) else None,
        "told": told,
    }
    save_checkpoint(folder / _FILE, content)


def load_estimator(kind: type[Estimator], folder: Path, module: nn.Module | None) -> tuple[Estimator, dict[str, Any]]:
    """Return an estimator with what both keep, and what it told beside.

    Raises:
        ValueError: the file is damaged or of another estimator, the module is missing or of another build, or the encoder
            found by name has other weights than that of the fit.
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
    return model, {**content["told"], "state": content["state"]}


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
        case PretrainedTexts(source, encoder):
            return {"is": "texts", "source": source, "sha256": weights_digest(encoder)}
        case PretrainedPictures(source, encoder):
            return {"is": "pictures", "source": source, "sha256": weights_digest(encoder)}
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
            return _same_weights(sentence_features(record["source"]), record, folder)
        case "pictures":
            return _same_weights(picture_features(record["source"]), record, folder)
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


def _same_weights(features: Any, record: dict[str, Any], folder: Path) -> Features:
    """Return features of an encoder by name, whose weights are those of the fit: the name may bring others by now."""
    if (found := weights_digest(features.encoder)) != record["sha256"]:
        raise ValueError(
            f"the model in {folder} was fitted with weights of {record['source']} whose sha256 is "
            f"{record['sha256'][:12]}…; found others under that name, {found[:12]}…. Bring those weights back, or fit again."
        )
    checked: Features = features
    return checked
