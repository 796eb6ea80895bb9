"""Texts with a class each: embedded, they are what tasks are drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.embeddings import embed
from kshot.tasks.labelled import LabelledData

__all__ = ["Texts"]


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts with a class each.

    Args:
        texts: n of them.
        labels: ``(n,)`` int64 positions in ``classes``.
        classes: the name of each class.
        groups: the group of each class (its domain, say).
        stamp: where they come from, for the record of every result.

    Raises:
        ValueError: shapes do not fit.

    >>> data = Texts(("my card is lost", "hello"), torch.tensor([0, 1]), ("lost_card", "greeting"))
    >>> data.subset([1]).texts
    ('hello',)
    """

    texts: tuple[str, ...]
    labels: Tensor
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    stamp: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, found = len(self.texts), f"{self.labels.dtype} {tuple(self.labels.shape)}"
        if self.labels.shape != (n,) or self.labels.dtype != torch.int64:
            raise ValueError(f"labels must be int64 of shape ({n},), one for each text; found {found}.")
        if n and not (self.labels.min() >= 0 and self.labels.max() < len(self.classes)):
            raise ValueError(f"labels must lie in 0 .. {len(self.classes) - 1}, one number for each class name.")

    @classmethod
    def from_pairs(cls, pairs: Sequence[tuple[str, str]], **stamp: str) -> "Texts":
        """Take (text, class) pairs; classes are numbered in alphabetical order."""
        classes = tuple(sorted({name for _, name in pairs}))
        number = {name: i for i, name in enumerate(classes)}
        labels = torch.tensor([number[name] for _, name in pairs], dtype=torch.int64)
        return cls(tuple(text for text, _ in pairs), labels, classes, stamp=stamp)

    def subset(self, classes: Sequence[int], **stamp: str) -> "Texts":
        """Keep these classes (positions in ``classes``), with what they add to the stamp."""
        position = {number: i for i, number in enumerate(classes)}
        kept = [(text, position[c]) for text, c in zip(self.texts, self.labels.tolist(), strict=True) if c in position]
        return replace(
            self,
            texts=tuple(text for text, _ in kept),
            labels=torch.tensor([c for _, c in kept], dtype=torch.int64),
            classes=tuple(self.classes[c] for c in classes),
            groups=None if self.groups is None else tuple(self.groups[c] for c in classes),
            stamp={**self.stamp, **stamp},
        )

    def with_vectors(self, x: Float[Tensor, "n d"], **stamp: str) -> LabelledData:
        """Put a vector in place of each text, with what that adds to the stamp."""
        return LabelledData(x, self.labels, self.classes, self.groups, stamp={**self.stamp, **stamp})

    def embedded(
        self, encoder: nn.Module, cache: Path | Literal[False] | None = None, batch_size: int = 256
    ) -> LabelledData:
        """Embed the texts by a frozen encoder, or read the embeddings from disk; see ``kshot.embeddings.embed``."""
        return self.with_vectors(embed(encoder, self.texts, batch_size, cache, "embedding texts"))
