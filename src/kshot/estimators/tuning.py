"""Method and penalty together, searched for by Optuna."""

from typing import Any

import torch
from sklearn.base import clone

from kshot.core import one_hot
from kshot.estimators.classifier import FewShotClassifier
from kshot.estimators.held_out import fitted_scale, folds_of, held_out_predictions
from kshot.estimators.methods import HEADS, build_method

__all__ = ["tune"]


def tune(model: FewShotClassifier, X: Any, y: Any, trials: int = 30, seed: int = 0) -> FewShotClassifier:  # noqa: N803
    """Return a classifier fitted with the method and the penalty under which held-out examples surprise least.

    Examples are embedded once. The surprise is the mean negative log-probability after calibration, on up to five folds.

    Args:
        model: whose other arguments stay; it is not changed itself.
        X: examples.
        y: their labels; one class at least needs two examples.
        trials: how many combinations are tried.
        seed: of the search.

    Raises:
        ImportError: optuna is not installed.
        ValueError: every class has one example, so that none can be held out.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError("tune needs optuna: pip install 'kshot[tune]'") from error
    chosen: FewShotClassifier = clone(model).set_params(method="nearest-mean").fit(X, y)
    z, labels, fold = chosen.support_, chosen.labels_, folds_of(chosen.labels_)
    if not bool((fold >= 0).any()):
        raise ValueError("tune holds examples out, so at least one class needs two; found one of each.")
    rows, truth = one_hot(labels, len(chosen.classes_)).to(z.dtype), labels[fold >= 0]

    def surprise(trial: "optuna.Trial") -> float:
        method = trial.suggest_categorical("method", HEADS)
        penalty = 1.0 if method == "nearest-mean" else trial.suggest_float("penalty", 1e-4, 1e4, log=True)
        logits = held_out_predictions(build_method(method, chosen.features_, penalty), z, rows, fold)
        return torch.nn.functional.cross_entropy(fitted_scale(logits, truth) * logits, truth).item()

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(surprise, n_trials=trials)
    best: FewShotClassifier = chosen.set_params(**study.best_params).fit(X, y)
    return best
