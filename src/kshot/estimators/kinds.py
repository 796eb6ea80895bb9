"""What a user's examples are: pictures, texts, or rows of numbers."""

from collections.abc import Hashable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

__all__ = ["Kind", "as_items", "check_duplicates", "kind_of"]

Kind: TypeAlias = Literal["numbers", "texts", "pictures"]


def kind_of(x: Any) -> Kind:
    """Tell pictures and texts from numbers by their types.

    Pictures are ``PIL.Image`` objects, paths, strings that end like a picture's file, and arrays of three axes or more;
    texts are other strings; everything else is numbers, tables with columns of words included.

    >>> kind_of(["cat.png", "dog.jpg"]), kind_of(["where is my card?"]), kind_of([[1.0, 2.0]])
    ('pictures', 'texts', 'numbers')
    """
    items = as_items(x)
    if items is None:
        return "pictures" if _axes(x) >= 3 else "numbers"
    if all(isinstance(item, str) for item in items):
        return "pictures" if all(_names_picture(item) for item in items) else "texts"
    return "pictures"


def as_items(x: Any) -> list[Any] | None:
    """Return strings, paths or pictures as a list, whatever holds them; None where x is an array of numbers."""
    if isinstance(x, Tensor) or hasattr(x, "toarray"):  # a sparse matrix
        return None
    if hasattr(x, "columns"):
        if len(x.columns) != 1:
            return None
        x = x.iloc[:, 0]
    items = list(x) if isinstance(x, Sequence) or (hasattr(x, "__array__") and _axes(x) == 1) else []
    whole = bool(items) and all(isinstance(item, str | Path | Image.Image) for item in items)
    return items if whole and not isinstance(x, str) else None


def check_duplicates(x: Any, labels: Sequence[Any]) -> None:
    """Raise ValueError where the same text or picture stands in two classes."""
    first: dict[Hashable, int] = {}
    items = as_items(x)
    for i, example in enumerate(x if items is None else items):
        j = first.setdefault(_content(example), i)
        if labels[i] != labels[j]:
            one, other = (f"example {k}" if items is None else f"{items[k]}" for k in (j, i))
            raise ValueError(
                f"the same example stands in two classes: {one} in {labels[j]!r} and {other} in {labels[i]!r}. Remove the "
                "wrong one."
            )


def _content(example: Any) -> Hashable:
    match example:
        case str() if not _names_picture(example):
            return example
        case str() | Path():
            return sha256(Path(example).read_bytes()).digest()
        case Image.Image():
            return sha256(example.tobytes()).digest()
    return sha256(np.ascontiguousarray(example).tobytes()).digest()


def _axes(x: Any) -> int:
    return int(x.ndim) if hasattr(x, "ndim") else np.asarray(x).ndim


def _names_picture(text: str) -> bool:
    return Path(text).suffix.lower() in Image.registered_extensions()
