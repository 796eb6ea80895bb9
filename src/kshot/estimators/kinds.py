"""What a user's examples are: pictures, texts, or rows of numbers."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

__all__ = ["Kind", "as_items", "check_duplicates", "contents_of", "kind_of"]

Kind: TypeAlias = Literal["numbers", "texts", "pictures"]
_NAMED = (str, Path, Image.Image)


def kind_of(x: Any, fitted: Kind | None = None) -> Kind:
    """Tell pictures and texts from numbers by their types.

    Pictures are ``PIL.Image`` objects, paths, strings that end like a picture's file, and arrays of three axes or more, or
    of two or three in a list;
    texts are other strings, and for a model that was ``fitted`` with texts all strings; everything else is numbers, tables
    with columns of words included.

    >>> kind_of(["cat.png", "dog.jpg"]), kind_of(["where is my card?"]), kind_of([[1.0, 2.0]])
    ('pictures', 'texts', 'numbers')
    """
    items = as_items(x)
    if items is None:
        return "pictures" if _axes(x) >= 3 else "numbers"
    if all(isinstance(item, str) for item in items):
        return "pictures" if fitted != "texts" and all(_names_picture(item) for item in items) else "texts"
    return "pictures"


def as_items(x: Any) -> list[Any] | None:
    """Return strings, paths or pictures as a list, whatever holds them; None where x is an array of numbers.

    Raises:
        ValueError: x is a single example, or texts or pictures stand among what is neither.
    """
    if isinstance(x, _NAMED):
        raise ValueError(f"expected a list of examples; found a single {type(x).__name__}. Put it into a list.")
    if isinstance(x, Tensor) or hasattr(x, "toarray"):  # a sparse matrix
        return None
    if hasattr(x, "columns"):
        if len(x.columns) != 1:
            return None
        x = x.iloc[:, 0]
    items = list(x) if isinstance(x, Sequence) or (hasattr(x, "__array__") and _axes(x) == 1) else []
    others = [i for i, item in enumerate(items) if not (isinstance(item, _NAMED) or _is_picture(item))]
    if others and any(isinstance(item, _NAMED) for item in items):
        raise ValueError(
            f"examples are expected to be of one kind; among texts or pictures there are {len(others)} others, first "
            f"{items[others[0]]!r} at position {others[0]}. Leave them out."
        )
    return items if items and not others else None


def contents_of(x: Any, kind: Kind) -> list[str]:
    """Return the sha256 of what each text or picture holds; a file under another name holds the same."""
    items = as_items(x)
    return [sha256(_content(example, kind)).hexdigest() for example in (x if items is None else items)]


def check_duplicates(contents: Sequence[str], labels: Sequence[Any], x: Any) -> None:
    """Raise ValueError where the same text or picture stands in two classes.

    Args:
        contents: of all examples, as ``contents_of`` tells them.
        labels: of all examples.
        x: the last of the examples, those that are new.
    """
    items = as_items(x)
    new = [f"example {i}" for i in range(len(x))] if items is None else [str(item) for item in items]
    names = ["one of the model's own"] * (len(contents) - len(new)) + new
    first: dict[str, int] = {}
    for i, content in enumerate(contents):
        j = first.setdefault(content, i)
        if labels[i] != labels[j]:
            raise ValueError(
                f"the same example stands in two classes: {names[j]} in {labels[j]!r} and {names[i]} in {labels[i]!r}. "
                "Remove the wrong one."
            )


def _content(example: Any, kind: Kind) -> bytes:
    match example:
        case str() if kind == "texts":
            return example.encode()
        case str() | Path():
            return Path(example).read_bytes()
        case Image.Image():  # of a palette the numbers alone say nothing
            return str(example.size).encode() + (example.convert("RGBA") if example.mode == "P" else example).tobytes()
    return np.ascontiguousarray(example).tobytes()


def _is_picture(item: Any) -> bool:
    return hasattr(item, "ndim") and item.ndim >= 2 and not hasattr(item, "columns")


def _axes(x: Any) -> int:
    return int(x.ndim) if hasattr(x, "ndim") else np.asarray(x).ndim


def _names_picture(text: str) -> bool:
    return Path(text).suffix.lower() in Image.registered_extensions()
