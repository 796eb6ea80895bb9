"""The search for method and penalty."""

import numpy as np
import pytest
import torch

from kshot.estimators import FewShotClassifier, tune


def test_finds_what_held_out_examples_favour() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 30)
    x = np.stack(
        [rng.normal(size=60) * 20, rng.normal(size=60) + 3 * y], 1
    )  # the first column is loud and means nothing
    start = FewShotClassifier(torch.nn.Identity(), threshold=0.01)
    tuned = tune(start, x, y, trials=12)
    assert tuned.method in ("ridge", "linear-probe")
    assert tuned.threshold == 0.01
    assert start.method == "nearest-mean"
    assert not hasattr(start, "support_")
    queries = np.stack([rng.normal(size=2000) * 20, rng.normal(size=2000) + np.repeat([0, 3], 1000)], 1)
    truth = np.repeat([0, 1], 1000)
    untuned = FewShotClassifier(torch.nn.Identity()).fit(x, y)
    assert (tuned.predict_proba(queries).argmax(1) == truth).mean() > (untuned.predict(queries) == truth).mean() + 0.1
    assert tune(start, x, y, trials=12).penalty == tuned.penalty


def test_needs_examples_to_hold_out() -> None:
    with pytest.raises(ValueError, match="one of each"):
        tune(FewShotClassifier(), [[0.0], [1.0]], ["a", "b"])
