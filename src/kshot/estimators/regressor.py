"""A regressor on pictures, texts and numbers from a few examples."""

import copy
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from kshot.core import Batch, Learner
from kshot.estimators.adapting import adapted
from kshot.estimators.fitted import FewShotEstimator
from kshot.estimators.held_out import folds_of, held_out_predictions
from kshot.estimators.methods import build_method, features_of
from kshot.estimators.pictures import PictureFormat
from kshot.estimators.storage import load_estimator, save_estimator
from kshot.learners.gradient import Ridge
from kshot.losses import mean_squared_error

__all__ = ["FewShotRegressor"]

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)


@final
class FewShotRegressor(RegressorMixin, FewShotEstimator):  # type: ignore[misc]
    """Predict numbers from a few examples: rows of numbers, pictures or texts.

    ``ridge`` fits a linear map of embeddings to standardised targets; of seven penalties it takes the one with the least
    squared error on held-out examples. A meta-trained learner, such as a MAML or a deep kernel, encodes for itself and
    adapts to the examples as they are.

    Args:
        encoder: as in ``FewShotClassifier``.
        method: ``ridge``, or ``own``, where the encoder is a learner of regression.
        picture: what a module of one's own expects of pictures from files.
        cache: a folder where the embeddings of examples are kept, so that the next fit on them has them at once.

    >>> line = FewShotRegressor().fit([[0.0], [1.0], [2.0], [3.0]], [1.0, 3.0, 5.0, 7.0])
    >>> line.predict([[4.0]]).round(1).tolist()
    [9.0]
    """

    targets_: Tensor
    penalty_: float
    learner_: Learner
    state_: Any

    def __init__(
        self,
        encoder: str | Path | nn.Module | None = None,
        method: Literal["ridge", "own"] = "ridge",
        *,
        picture: PictureFormat | None = None,
        cache: Path | None = None,
    ) -> None:
        self.encoder, self.method, self.picture, self.cache = encoder, method, picture, cache

    def fit(self, X: Any, y: Any) -> "FewShotRegressor":  # noqa: N803
        """Learn from examples ``X`` with a target each, ``(n,)`` or ``(n, targets)``.

        Raises:
            ValueError: a target is not a finite number, or an example is no whole picture, an empty text or NaN.
        """
        y = self._numbers(X, y)
        if self.method not in ("ridge", "own"):
            raise ValueError(f"method must be 'ridge', or 'own' for a learner of regression; found {self.method!r}.")
        if self.method == "own" and isinstance(self.encoder, Learner) and self.encoder.loss.labels:
            raise ValueError(
                "method 'own' needs a learner of regression; this one is judged by labels. Use a classifier."
            )
        fitted = copy.copy(self)  # of which nothing is left where it fails
        fitted._start(X)
        fitted.features_ = features_of(fitted.features_, self.method)
        fitted.support_, fitted.targets_ = fitted._embedded(X, self.cache), y
        self._become(fitted._choose()._adapt())
        return self

    def partial_fit(self, X: Any, y: Any) -> "FewShotRegressor":  # noqa: N803
        """Add examples; columns keep the scale of the first fit. What fails leaves the model as it was."""
        if not hasattr(self, "support_"):
            return self.fit(X, y)
        y = self._numbers(X, y)
        if y.shape[1:] != self.targets_.shape[1:]:
            raise ValueError(
                f"expected targets of shape (n, *{tuple(self.targets_.shape[1:])}); found {tuple(y.shape)}."
            )
        grown = copy.copy(self)
        grown.support_ = torch.cat([self.support_, self._embedded(X, self.cache)])
        grown.targets_ = torch.cat([self.targets_, y])
        self._become(grown._choose()._adapt())
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return a prediction for each example, ``(n,)`` or ``(n, targets)`` like the targets of the fit."""
        check_is_fitted(self)
        z = self._embedded(X)
        with torch.no_grad():
            predictions = self.learner_.predict(self.state_, z).double()
        mean, scale = self._moments()
        return (mean + scale * predictions).reshape(len(z), *self.targets_.shape[1:]).numpy()

    def save(self, path: str | Path) -> None:
        """Write the model into a folder: one file of tensors with JSON in its header, whole or not at all."""
        check_is_fitted(self)
        save_estimator(self, Path(path), {"targets": self.targets_, "penalty": self.penalty_})

    @classmethod
    def load(cls, path: str | Path, module: nn.Module | None = None) -> "FewShotRegressor":
        """Read a model that was saved; arguments and errors as in ``FewShotClassifier.load``."""
        model, told = load_estimator(cls, Path(path), module)
        model.targets_, model.penalty_ = told["targets"], told["penalty"]
        return model._adapt(told["state"])

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that there may be several targets."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _numbers(self, x: Any, y: Any) -> Tensor:
        y = check_array(self._targets(x, y), ensure_2d=False, dtype=np.float64, input_name="y")
        return torch.from_numpy(np.array(y))

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of the targets; a learner takes them as they are."""
        if self.method == "own":
            return torch.tensor(0.0), torch.tensor(1.0)
        rows = self.targets_.reshape(len(self.targets_), -1)
        deviation = rows.std(0, correction=0)
        return rows.mean(0), torch.where(deviation > 0, deviation, 1)

    def _rows(self) -> Tensor:
        mean, scale = self._moments()
        return (self.targets_.reshape(len(self.targets_), -1) - mean) / scale

    def _choose(self) -> "FewShotRegressor":
        """Take the penalty with the least error on held-out examples."""
        self.penalty_ = 1.0
        rows = self._rows()
        if self.method != "own" and len(rows) > 1:
            fold = folds_of(torch.zeros(len(rows), dtype=torch.int64))
            errors = {
                penalty: (held_out_predictions(_ridge(penalty), self.support_, rows, fold) - rows)
                .square()
                .mean()
                .item()
                for penalty in _PENALTIES
            }
            self.penalty_ = min(_PENALTIES, key=lambda penalty: errors[penalty])
        return self

    def _adapt(self, state: Any = None) -> "FewShotRegressor":
        own = self.method == "own"
        self.learner_ = build_method("own", self.features_) if own else _ridge(self.penalty_)
        self.state_ = state
        if state is None:
            self.state_ = adapted(self.learner_, Batch(self.support_, self._rows().to(self.support_.dtype)))
        return self


def _ridge(penalty: float) -> Learner:
    return Ridge(nn.Identity(), mean_squared_error, penalty=penalty).double().eval()
