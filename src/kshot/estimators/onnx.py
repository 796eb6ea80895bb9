"""A fitted classifier as one ONNX file: encoder and head together, for any number of examples."""

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from kshot.atomic import atomic_file
from kshot.core import Learner
from kshot.estimators.classifier import FewShotClassifier
from kshot.estimators.familiarity import squared_distances
from kshot.estimators.features import Numbers, Own, PretrainedPictures, Thumbnails
from kshot.learners.metric import Prototypical
from kshot.learners.metric.distances import squared_euclidean

__all__ = ["export_onnx"]


def export_onnx(model: FewShotClassifier, path: str | Path, example: Any) -> None:
    """Write a classifier as ONNX, its weights baked in.

    The input ``x`` is what the encoder takes, ``(n, *features)`` float32: columns of numbers as they are, or pictures from 0
    to 1 in the model's format. The output ``probabilities`` is that of each class, ``(n, classes)``; their names are in the
    file's metadata, as JSON under ``classes``. A model with a threshold has the output ``none`` too, ``(n,)``: whether an
    example is none of these.

    Args:
        model: fitted to numbers, to pictures, or with a module of one's own.
        path: of the file, which appears whole or not at all.
        example: two examples or more like those of the fit.

    Raises:
        ImportError: onnx is not installed.
        ValueError: the model reads texts, whose tokenizer ONNX cannot hold, or a table with columns of words.
    """
    try:
        import onnxscript  # noqa: F401, the exporter needs it
    except ImportError as error:
        raise ImportError("export needs onnx and onnxscript: pip install 'kshot[onnx]'") from error
    inputs = _inputs(model, example)
    outputs = ["probabilities"] if model.familiarity_ is None else ["probabilities", "none"]
    with warnings.catch_warnings(), _errors_alone("torch.onnx"):
        # Of the exporter, about packages that are not there and names it will change.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Whole(model).eval(),
            (inputs,),
            input_names=["x"],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props["classes"] = json.dumps(model.classes_.tolist())
    with atomic_file(Path(path)) as file:
        file.write(program.model_proto.SerializeToString())


@contextmanager
def _errors_alone(name: str) -> Iterator[None]:
    """Let a logger and those beneath it tell nothing but errors."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class _Whole(nn.Module):
    """From what the encoder takes to probabilities."""

    def __init__(self, model: FewShotClassifier) -> None:
        super().__init__()
        self.features, self.scale = model.features_, model.scale_
        self.learner = copy.deepcopy(model.learner_).float()
        if isinstance(self.learner, Prototypical) and self.learner.distance is squared_distances:
            self.learner.distance = squared_euclidean  # the same, of which ONNX knows every operation
        self.state = tree_map(lambda leaf: leaf.float(), model.state_)
        match model.features_:
            case Own(as_it_is=True):
                self.encoder: nn.Module = nn.Identity()  # the learner has it, with weights of its own
            case Own(encoder) | PretrainedPictures(_, encoder):
                self.encoder = copy.deepcopy(encoder).float()
            case Numbers(table):
                self.encoder = _Standardise(torch.tensor(table.mean), torch.tensor(table.scale))
            case Thumbnails():
                self.encoder = _Centre()
        self.limit: float | None = None
        if model.familiarity_ is not None:
            assert model.threshold is not None
            self.means = model.familiarity_.means.float()
            self.limit = model.familiarity_.limit(model.threshold)

    def forward(self, x: Float[Tensor, "n ..."]) -> tuple[Tensor, ...]:
        z = self.encoder.encode(x) if isinstance(self.encoder, Learner) else self.encoder(x)
        if isinstance(self.features, PretrainedPictures | Thumbnails):
            z = nn.functional.normalize(z, dim=1)
        logits: Tensor = self.learner.predict(self.state, z)
        probabilities = (self.scale * logits).softmax(-1)
        if self.limit is None:
            return (probabilities,)
        return probabilities, squared_euclidean(z.flatten(1), self.means).amin(1) > self.limit


class _Standardise(nn.Module):
    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        standardised: Tensor = (x - self.mean) / self.scale
        return standardised


class _Centre(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return flat - flat.mean(1, keepdim=True)


def _inputs(model: FewShotClassifier, example: Any) -> Tensor:
    features = model.features_
    if features.kind == "texts":
        raise ValueError(
            "a model of texts has a tokenizer, which ONNX cannot hold. Export the sentence encoder with transformers' own "
            "tools, and keep the model for the rest."
        )
    if isinstance(features, Numbers) and features.table.words:
        raise ValueError("a table with columns of words is not exported; turn them into numbers first.")
    return features.inputs(example).float()
