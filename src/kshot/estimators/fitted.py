"""What the classifier and the regressor have in common: examples of any kind, embedded, kept and added to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_consistent_length, validate_data
from torch import Tensor, nn

from kshot.estimators.features import Features, features_for
from kshot.estimators.kinds import as_items, kind_of
from kshot.estimators.pictures import PictureFormat
from kshot.estimators.tables import numbers_of

__all__ = ["FewShotEstimator"]


class FewShotEstimator(BaseEstimator):  # type: ignore[misc]
    """An estimator that embeds examples of any kind and keeps them, so that more can be added; abstract."""

    encoder: str | Path | nn.Module | None
    method: Any
    picture: PictureFormat | None
    cache: Path | None
    features_: Features
    support_: Tensor
    state_: Any

    def _become(self, fitted: "FewShotEstimator") -> None:
        """Take over what a copy has learned, once nothing can fail any more."""
        self.__dict__.update(vars(fitted))

    def _start(self, x: Any) -> None:
        """Choose how the examples of a fit become rows."""
        self.features_ = features_for(self._checked(x, reset=True), self.encoder, self.picture)

    def _embedded(self, x: Any, cache: Path | None = None) -> Tensor:
        """Check examples and embed them, ``(n, d)`` float64."""
        z = self.features_(self._checked(x, reset=False), cache).contiguous()  # as a file keeps it: strides round too
        if not (finite := z.flatten(1).isfinite().all(1)).all():  # every comparison with NaN answers the first class
            rows = (~finite).nonzero().flatten().tolist()
            raise ValueError(
                f"embeddings are expected to be finite; found NaN or infinity in {len(rows)} of {len(z)}, first at "
                f"positions {rows[:5]}. Mend or leave out these examples, or, where it is all, the encoder's weights."
            )
        # A head's rounding should not depend on how many examples are asked at once.
        return z if self.features_.typed else z.flatten(1).double()

    def _checked(self, x: Any, reset: bool) -> Any:
        if x.shape[:1] == (0,) if hasattr(x, "shape") else isinstance(x, Sequence) and not x:
            raise ValueError("expected at least one example; found none.")
        fitted = None if reset else self.features_.kind
        kind = kind_of(x, fitted)
        # An array of other axes goes on to the pictures' format, which tells the shapes that it takes.
        array_of_pictures = (kind, fitted) == ("numbers", "pictures") and not hasattr(x, "columns")
        if fitted not in (None, kind) and not array_of_pictures:
            raise ValueError(f"the model was fitted with {fitted}; found {kind}.")
        if (items := as_items(x)) is not None:
            if empty := [i for i, item in enumerate(items) if isinstance(item, str) and not item.strip()]:
                raise ValueError(f"{len(empty)} texts are empty, first at positions {empty[:5]}. Leave them out.")
            return items
        if kind == "pictures":
            return x
        if not hasattr(x, "columns"):
            x = numbers_of(x)
        validate_data(self, x, reset=reset, skip_check_array=True)
        return x

    def _targets(self, x: Any, y: Any) -> Any:
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        y = y.detach().cpu().numpy() if isinstance(y, Tensor) else y
        check_consistent_length(x, y)
        return y
