"""Classifiers as ONNX: what onnxruntime answers is what the classifier answers."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kshot.estimators import FewShotClassifier, export_onnx
from kshot.learners.gradient import Ridge
from kshot.nets.conv import Conv4

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["nearest-mean", "ridge", "linear-probe", "fine-tune", "learner", "numbers"])
def test_onnxruntime_answers_the_same_for_any_number_of_examples(method: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 5)) if method == "numbers" else rng.random((12, 1, 28, 28), dtype=np.float32)
    y = np.array(["a", "b", "c"] * 4)
    torch.manual_seed(0)
    encoder = Conv4(1, 8)
    match method:
        case "numbers":
            model = FewShotClassifier(threshold=0.05)
        case "learner":
            model = FewShotClassifier(Ridge(encoder), "own")
        case _:
            model = FewShotClassifier(encoder, method)
    model.fit(x, y)
    export_onnx(model, tmp_path / "model.onnx", x[:2])
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["a", "b", "c"]
    for n in (1, 7, 12):
        found, *strange = session.run(None, {"x": x[:n].astype(np.float32)})
        np.testing.assert_allclose(found, model.predict_proba(x[:n]), atol=1e-4)
        if method == "numbers":
            assert (strange[0] == (model.predict(x[:n]) == "none of these")).all()
            assert session.run(["none"], {"x": 99 * np.ones((1, 5), np.float32)})[0].all()


@pytest.mark.filterwarnings("ignore")
def test_the_exporter_tells_nothing_of_what_it_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger("torch.onnx"), "handlers", [handler := logging.Handler()])
    monkeypatch.setattr(handler, "handle", told.append)
    x = [[0.0, 1.0], [1.0, 0.0]]
    export_onnx(FewShotClassifier().fit(x, ["a", "b"]), tmp_path / "model.onnx", x)
    assert [record.getMessage() for record in told] == []


def test_texts_are_refused(tmp_path: Path) -> None:
    model = FewShotClassifier(nn.Identity()).fit([[0.0], [1.0]], ["a", "b"])
    model.features_ = FewShotClassifier().fit(["one text", "another one"], ["a", "b"]).features_
    with pytest.raises(ValueError, match="tokenizer"):
        export_onnx(model, tmp_path / "model.onnx", ["a text"])
    assert not any(tmp_path.iterdir())
