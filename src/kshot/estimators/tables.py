"""Rows of numbers, and tables whose columns may hold words."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.utils import check_array
from torch import Tensor

__all__ = ["Table", "numbers_of"]


@dataclass(frozen=True)
class Table:
    """How the columns of a table become numbers: one of words becomes a column of zeros and ones for each of its words.

    Args:
        words: the words of each such column, by its name; a word that is not among them is zero everywhere.
        mean: of each column of numbers, and zero for ones made of words.
        scale: their deviation, one where it is zero and for those of words.
    """

    words: Mapping[str, tuple[str, ...]]
    mean: tuple[float, ...] = field(repr=False)
    scale: tuple[float, ...] = field(repr=False)

    @classmethod
    def of(cls, x: Any) -> "Table":
        """Learn columns, means and deviations from the examples of a fit.

        >>> Table.of([[0.0], [2.0]]).standardised([[4.0]])
        tensor([[3.]], dtype=torch.float64)
        """
        words = {name: tuple(sorted({str(v) for v in x[name]})) for name in _columns_of_words(x)}
        for name, known in words.items():
            if len(known) == len(x) > 2:
                warnings.warn(
                    f"column {name!r} has other words in every row, which tell nothing of new rows. Texts are read as texts "
                    "where they are the only column; leave out what names a row.",
                    stacklevel=5,
                )
        plain = cls(words, (), ()).plain(x)
        made = sum(map(len, words.values()))  # they stand last, and stay zeros and ones
        mean, scale = plain.mean(0), plain.std(0, correction=0)
        same = scale <= 1e-12 * mean.abs().clamp_min(1)
        scale[same] = 1
        if made:
            mean[-made:], scale[-made:] = 0, 1
        return cls(words, tuple(mean.tolist()), tuple(scale.tolist()))

    def plain(self, x: Any) -> Float[Tensor, "n d"]:
        """Return the columns as numbers, those made of words last.

        Raises:
            ValueError: a value is NaN or infinite, or x is no table.
            TypeError: a value is neither a number nor, in a column, a word.
        """
        if not self.words:
            return torch.from_numpy(np.array(numbers_of(x)))  # of its own, since torch shares it
        if not hasattr(x, "columns"):
            raise ValueError(
                f"the model was fitted with a table that has columns of words ({', '.join(self.words)}); found a "
                f"{type(x).__name__}. Pass a table with the same columns."
            )
        numbers = x.drop(columns=list(self.words))
        parts = [numbers_of(numbers)] if len(numbers.columns) else []
        for name, known in self.words.items():
            parts.append((x[name].astype(str).to_numpy()[:, None] == np.array(known)[None]).astype(np.float64))
        return torch.from_numpy(np.concatenate(parts, 1))

    def standardised(self, x: Any) -> Float[Tensor, "n d"]:
        """Return the columns with mean zero and deviation one over the examples of the fit."""
        return (self.plain(x) - torch.tensor(self.mean, dtype=torch.float64)) / torch.tensor(
            self.scale, dtype=torch.float64
        )


def _columns_of_words(x: Any) -> list[str]:
    if not hasattr(x, "select_dtypes"):
        return []
    return [name for name in x.columns if x[name].dtype.kind not in "biuf"]


def numbers_of(x: Any) -> NDArray[np.float64]:
    """Return rows of numbers, ``(n, d)``.

    Raises:
        ValueError: a value is no number, NaN or infinite; where it stands is told.
    """
    x = x.detach().cpu().numpy() if isinstance(x, Tensor) else x
    try:
        numbers: NDArray[np.float64] = check_array(x, dtype=np.float64, ensure_all_finite=False)
    except ValueError as error:
        if names := _columns_of_words(x):
            raise ValueError(
                f"columns {', '.join(map(str, names))} are expected to hold numbers, as in the fit; {error}. Mend them."
            ) from error
        raise
    if not (finite := np.isfinite(numbers)).all():
        named = getattr(x, "columns", np.arange(numbers.shape[1]))
        columns = [str(name) for name in named[~finite.all(0)]]
        rows = np.flatnonzero(~finite.all(1)).tolist()
        raise ValueError(
            f"expected a finite number in every cell; found NaN or infinity in {len(rows)} of {len(numbers)} rows, first at "
            f"positions {rows[:5]}, counted from 0, in columns {', '.join(columns[:5])}. Fill them in, by scikit-learn's "
            "SimpleImputer say, or leave the rows out."
        )
    return numbers
