"""Examples grouped by class: what classification tasks are drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.tasks.files import read_folder, read_table

__all__ = ["LabelledData", "Rotations", "Splits"]

Rotations: TypeAlias = Literal["none", "classes", "per_class", "per_episode"]


@dataclass(frozen=True, eq=False)
class LabelledData:
    """Examples with a class each, in memory.

    Args:
        x: ``(n, *features)``; uint8 is kept as it is and becomes float32 in 0..1 when a task is drawn.
        labels: ``(n,)`` int64 positions in ``classes``.
        classes: the name of each class.
        groups: the group of each class (its alphabet, say), for tasks that stay within one group.
        rotations: what quarter turns do in a task. ``classes``: each turn of a class is a class of its own;
            ``per_class``: each class of a task is turned at random; ``per_episode``: all classes of a task alike.
        stamp: where the data comes from, for the record of every result.

    Raises:
        ValueError: shapes do not fit, values are NaN or infinite, or a class has no example.

    >>> data = LabelledData.from_arrays([[0.0], [1.0], [5.0]], ["low", "low", "high"])
    >>> data.classes, data.sizes.tolist()
    (('high', 'low'), [1, 2])
    """

    x: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    rotations: Rotations = "none"
    stamp: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.x)
        if self.x.dtype != torch.uint8 and not self.x.is_floating_point():
            raise ValueError(f"x must be uint8 or floats; found {self.x.dtype}. LabelledData.from_arrays converts it.")
        if self.labels.shape != (n,) or self.labels.dtype != torch.int64:
            found = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise ValueError(f"labels must be int64 of shape ({n},), one for each example; found {found}.")
        if n and not (self.labels.min() >= 0 and self.labels.max() < len(self.classes)):
            raise ValueError(f"labels must lie in 0 .. {len(self.classes) - 1}, one number for each class name.")
        if self.groups is not None and len(self.groups) != len(self.classes):
            raise ValueError(
                f"groups must name one group for each of {len(self.classes)} classes; found {len(self.groups)}."
            )
        if empty := [name for name, size in zip(self.classes, self.sizes, strict=True) if not size]:
            raise ValueError(f"every class needs at least one example; none found for {', '.join(empty[:5])}.")
        if self.x.is_floating_point() and not (finite := self.x.flatten(1).isfinite().all(1)).all():
            bad = (~finite).nonzero().flatten().tolist()
            raise ValueError(
                f"x must be finite; found NaN or infinity in {len(bad)} examples, first {bad[:5]}. Drop or mend them."
            )
        if self.rotations != "none" and (self.x.dim() < 3 or self.x.shape[-1] != self.x.shape[-2]):
            raise ValueError(
                f"rotations need square pictures (n, channels, side, side); found x {tuple(self.x.shape)}."
            )

    @classmethod
    def from_arrays(cls, x: Any, labels: Any, **stamp: str) -> "LabelledData":
        """Take examples ``(n, *features)`` and a label each: numbers or strings, in arrays, tensors or lists."""
        x = torch.as_tensor(x)
        if x.dtype != torch.uint8:
            x = x.to(torch.get_default_dtype())
        names, numbers = np.unique(np.asarray(labels), return_inverse=True)
        return cls(x, torch.from_numpy(numbers.reshape(-1).astype(np.int64)), tuple(map(str, names)), stamp=stamp)

    @classmethod
    def from_folder(
        cls, path: str | Path, size: int = 84, mode: Literal["RGB", "L"] = "RGB", skip_unreadable: bool = False
    ) -> "LabelledData":
        """Read a folder that holds one folder of pictures for each class; each picture becomes a ``size`` square.

        Raises:
            ValueError: a file is not a whole picture (named; ``skip_unreadable=True`` leaves it out), or none is found.
        """
        x, labels = read_folder(Path(path), size, mode, skip_unreadable)
        return cls.from_arrays(x, labels, data=Path(path).name, resize=f"{size}x{size} antialiased")

    @classmethod
    def from_csv(cls, path: str | Path, label: str = "label") -> "LabelledData":
        """Read a table with a header: the column ``label`` is the class, every other column a number.

        Raises:
            ValueError: the label column is missing, or a cell is not a number (its line and column are named).
        """
        x, labels = read_table(Path(path), label)
        return cls.from_arrays(x, labels, data=Path(path).name)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """How many examples each class has."""
        return np.bincount(self.labels.cpu().numpy(), minlength=len(self.classes))

    def subset(self, classes: Sequence[int], **stamp: str) -> "LabelledData":
        """Keep these classes (positions in ``classes``), with what they add to the stamp."""
        position = torch.full((len(self.classes),), -1)
        position[list(classes)] = torch.arange(len(classes))
        renumbered = position[self.labels.cpu()].to(self.labels.device)
        keep = renumbered >= 0
        return replace(
            self,
            x=self.x[keep],
            labels=renumbered[keep],
            classes=tuple(self.classes[c] for c in classes),
            groups=None if self.groups is None else tuple(self.groups[c] for c in classes),
            stamp={**self.stamp, **stamp},
        )

    def joined(self, other: "LabelledData", **stamp: str) -> "LabelledData":
        """Return the examples and classes of both, which share no class, with what they add to the stamp.

        Raises:
            ValueError: they share a class, or their examples are not alike.
        """
        _check_apart(("one", "the other"), self, other)
        alike = [(part.x.dtype, tuple(part.x.shape[1:]), part.rotations) for part in (self, other)]
        if alike[0] != alike[1]:
            raise ValueError(
                f"examples of one type and shape, under one rule for rotations, can be joined; found "
                f"{alike[0]} and {alike[1]}."
            )
        return replace(
            self,
            x=torch.cat([self.x, other.x]),
            labels=torch.cat([self.labels, other.labels + len(self.classes)]),
            classes=self.classes + other.classes,
            groups=None if self.groups is None or other.groups is None else self.groups + other.groups,
            stamp={**self.stamp, **stamp},
        )

    def with_mirrored_classes(self) -> "LabelledData":
        """Add the mirror image of every class, and of every group, as one of its own: twice as many to meta-train on.

        Raises:
            ValueError: the examples are not pictures.

        >>> pictures = LabelledData.from_arrays(torch.rand(2, 1, 4, 4), ["b", "p"])
        >>> pictures.with_mirrored_classes().classes
        ('b', 'p', 'b mirrored', 'p mirrored')
        """
        if self.x.dim() < 3:
            raise ValueError(f"mirroring needs pictures (n, channels, height, width); found x {tuple(self.x.shape)}.")
        classes = tuple(f"{name} mirrored" for name in self.classes)
        groups = None if self.groups is None else tuple(f"{name} mirrored" for name in self.groups)
        return self.joined(replace(self, x=self.x.flip(-1), classes=classes, groups=groups), mirrored="classes")

    def with_rotations(self, rotations: Rotations) -> "LabelledData":
        """Return the same examples under another rule for quarter turns."""
        return replace(self, rotations=rotations)

    def to(self, device: torch.device | str) -> "LabelledData":
        """Move the examples to a device, where tasks are then drawn."""
        return replace(self, x=self.x.to(device), labels=self.labels.to(device))

    def split(self, val: float = 0.2, test: float = 0.2, seed: int = 0) -> "Splits":
        """Deal the classes at random to train, val and test; ``val`` and ``test`` are shares of the classes.

        Raises:
            ValueError: a share is negative, or nothing is left to train on.
        """
        if min(val, test) < 0 or val + test >= 1:
            raise ValueError(
                f"val and test are shares of the classes that leave some to train on; found {val} and {test}."
            )
        order = np.random.default_rng(seed).permutation(len(self.classes)).tolist()
        counts = [round(share * len(order)) for share in (val, test)]
        parts = order[sum(counts) :], order[: counts[0]], order[counts[0] : sum(counts)]
        named = zip(("train", "val", "test"), parts, strict=True)
        return Splits(
            *(self.subset(sorted(part), split=f"{name} of random classes, seed {seed}") for name, part in named)
        )


class Splits(NamedTuple):
    """Three sets of classes that share none; where a protocol has no validation classes, some are taken from train."""

    train: LabelledData
    val: LabelledData
    test: LabelledData


def check_disjoint(splits: Splits) -> Splits:
    """Return the splits, or raise ValueError with the names of classes that stand in two of them."""
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        _check_apart((one, other), getattr(splits, one), getattr(splits, other))
    return splits


def _check_apart(names: tuple[str, str], one: LabelledData, other: LabelledData) -> None:
    if shared := set(one.classes) & set(other.classes):
        first = ", ".join(sorted(shared)[:5])
        raise ValueError(
            f"a class must stand in one split only; {' and '.join(names)} share {len(shared)}: {first}. "
            "Rename what is only called the same."
        )
