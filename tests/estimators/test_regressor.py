"""The few-line regressor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.utils.estimator_checks import check_estimator

from kshot.core import Batch
from kshot.estimators import FewShotClassifier, FewShotRegressor
from kshot.learners.gradient import DeepKernel
from kshot.learners.metric import Prototypical


@pytest.mark.filterwarnings("ignore")
def test_passes_the_checks_of_scikit_learn() -> None:
    results = check_estimator(FewShotRegressor(), on_fail=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    # That one sets nonsense in __init__, which the type checker of these tests refuses before the estimator could.
    assert failed <= {"check_do_not_raise_errors_in_init_or_set_params"}
    assert len(results) > 40


def line(n: int, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 5))
    return x, 100 + x @ np.array([3.0, -2.0, 1.0, 0.0, 0.0]) + noise * rng.normal(size=n)


def test_is_about_as_good_as_ridge_with_a_chosen_penalty() -> None:
    x, y = line(20)
    queries, truth = line(1000)
    ours = FewShotRegressor().fit(x, y).score(queries, truth)
    theirs = RidgeCV(np.logspace(-3, 3, 7)).fit(x, y).score(queries, truth)
    assert ours > theirs - 0.02 > 0.8


def test_several_targets_and_examples_added(tmp_path: Path) -> None:
    x, y = line(12, noise=0.0)
    both = np.stack([y, -2 * y], 1)
    model = FewShotRegressor(torch.nn.Identity()).fit(x[:6], both[:6]).partial_fit(x[6:], both[6:])
    whole = FewShotRegressor(torch.nn.Identity()).fit(x, both)
    np.testing.assert_allclose(model.predict(x), whole.predict(x), rtol=1e-6)
    with pytest.raises(ValueError, match="expected targets of shape"):
        model.partial_fit(x, y)
    saved = FewShotRegressor().fit(x, both)
    saved.save(tmp_path)
    assert (FewShotRegressor.load(tmp_path).predict(x) == saved.predict(x)).all()
    with pytest.raises(ValueError, match="expected a saved FewShotClassifier"):
        FewShotClassifier.load(tmp_path)


def test_what_fails_leaves_the_model_as_it_was() -> None:
    model = FewShotRegressor().fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
    before = model.predict([[4.0]])
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit([[float("nan")]], [7.0])
    with pytest.raises(ValueError, match="features"):
        model.partial_fit([[1.0, 2.0]], [7.0])
    with pytest.raises(ValueError, match="method must be"):
        model.set_params(method="own").fit([[0.0, 1.0], [1.0, 2.0]], [0.0, 1.0])
    assert (model.set_params(method="ridge").predict([[4.0]]) == before).all()


def test_a_learner_of_regression_adapts_to_the_examples_as_they_are() -> None:
    x, y = line(8)
    learner = DeepKernel(torch.nn.Identity())
    model = FewShotRegressor(learner, "own").fit(x, y)
    inputs = torch.from_numpy(x).float()
    with torch.no_grad():
        expected = learner.predict(learner.adapt(Batch(inputs, torch.from_numpy(y).float()[:, None])), inputs)[:, 0]
    np.testing.assert_allclose(model.predict(x), expected.numpy(), rtol=1e-5)


def test_a_learner_of_classes_is_no_method() -> None:
    with pytest.raises(ValueError, match="needs a learner of regression"):
        FewShotRegressor(Prototypical(torch.nn.Identity()), "own").fit([[0.0], [1.0]], [0.0, 1.0])
