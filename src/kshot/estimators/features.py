"""How examples of each kind become rows of numbers: by an encoder that is given, or by what needs none."""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Learner
from kshot.embeddings import embed
from kshot.estimators.kinds import Kind, kind_of
from kshot.estimators.pictures import PictureFormat
from kshot.estimators.tables import Table
from kshot.modes import in_eval_mode

__all__ = ["Features", "Numbers", "Own", "PretrainedPictures", "PretrainedTexts", "Thumbnails", "Words", "features_for"]

MINILM = "minilm"  # the sentence encoder that comes as a package
_TOGETHER = 256  # examples that a learner encodes at once


class Features(ABC):
    """A map from examples of one kind to rows of numbers; abstract."""

    kind: Kind
    as_it_is = False  # whether an example is not embedded, because its encoder will be trained on it
    typed = False  # whether rows keep their own type and shape; where not, they become rows of float64

    knows = "what the encoder knows"  # that examples should be like

    @abstractmethod
    def __call__(self, x: Any, cache: Path | None = None) -> Float[Tensor, "n d"]:
        """Return a row for each example; where there is a cache, what an encoder makes of them is kept in that folder."""

    def inputs(self, x: Any) -> Tensor:
        """Return what goes into its net, where it is tensors.

        Raises:
            ValueError: it is not.
        """
        raise ValueError(f"{self.kind} are no tensors; found {type(x).__name__}.")

    def reads_words(self, column: str) -> bool:
        """Say whether a column of a table is words, even where they look like numbers."""
        del column
        return self.kind == "texts"

    @property
    @abstractmethod
    def name(self) -> str:
        """What a report calls it."""


@final
@dataclass(frozen=True)
class Numbers(Features):
    """The columns of a table, those of numbers with mean zero and deviation one over the examples of the fit."""

    table: Table
    kind = "numbers"
    name = "standardised columns"
    knows = "what columns as they are tell apart"

    def __call__(self, x: Any, cache: Path | None = None) -> Float[Tensor, "n d"]:
        """Return the columns, float64."""
        del cache  # it is made at once
        return self.table.standardised(x)

    def reads_words(self, column: str) -> bool:
        """Say whether the column held words in the fit."""
        return column in self.table.words

    def inputs(self, x: Any) -> Tensor:
        """Return the columns as they are."""
        return self.table.plain(x)


@final
@dataclass(frozen=True)
class Words(Features):
    """Counts of words and of parts of words, hashed, so that new words need no new fit."""

    size: int = 4096
    kind = "texts"
    name = "hashed words and parts of words"
    knows = "what words alone tell apart"

    def __call__(self, x: Any, cache: Path | None = None) -> Float[Tensor, "n d"]:
        """Return rows of length one."""
        del cache  # it is made at once
        from sklearn.feature_extraction.text import HashingVectorizer

        parts = {"word": (1, 2), "char_wb": (3, 4)}
        counts = [
            HashingVectorizer(analyzer=unit, ngram_range=lengths, n_features=self.size // 2, alternate_sign=False)
            .transform(x)
            .toarray()
            for unit, lengths in parts.items()
        ]
        return F.normalize(torch.cat([torch.from_numpy(part) for part in counts], 1), dim=1)


@final
@dataclass(frozen=True)
class Thumbnails(Features):
    """Tiny pictures, where there is no encoder: they tell apart little more than colours and rough shapes."""

    size: int = 16
    kind = "pictures"
    name = "tiny pictures, no encoder"
    knows = "what colours and rough shapes tell apart"

    def __call__(self, x: Any, cache: Path | None = None) -> Float[Tensor, "n d"]:
        """Return rows of mean zero and length one."""
        del cache  # it is made at once
        pictures = self.inputs(x).flatten(1)
        return F.normalize(pictures - pictures.mean(1, keepdim=True), dim=1)

    def inputs(self, x: Any) -> Tensor:
        """Return the tiny pictures."""
        return PictureFormat(self.size).read(x)


@final
@dataclass(frozen=True)
class PretrainedTexts(Features):
    """The embeddings of a sentence encoder."""

    source: str
    encoder: Any
    kind = "texts"

    @property
    def name(self) -> str:
        """Where it comes from."""
        return self.source

    def __call__(self, x: Any, cache: Path | None = None) -> Float[Tensor, "n d"]:
        """Return embeddings of length one, whose means compare by angle."""
        return F.normalize(embed(self.encoder, x, cache=cache or False), dim=1)


@final
@dataclass(frozen=True)
class PretrainedPictures(Features):
    """The embeddings of a picture encoder."""

    source: str
    encoder: Any
    kind = "pictures"

    @property
    def name(self) -> str:
        """Where it comes from."""
        return self.source

    def __call__(self, x: Any, cache: Path | None = None) -> Float[Tensor, "n d"]:
        """Return embeddings of length one, whose means compare by angle."""
        return F.normalize(embed(self.encoder, self.inputs(x), cache=cache or False), dim=1)

    def inputs(self, x: Any) -> Tensor:
        """Return the pictures in the encoder's size."""
        return PictureFormat(max(self.encoder.size)).read(x)


@final
@dataclass(frozen=True)
class Own(Features):
    """What the user's own module makes of an example; of a learner it is what its ``encode`` makes."""

    encoder: nn.Module
    format: PictureFormat | None
    table: Table | None
    as_it_is: bool = False

    @property
    def typed(self) -> bool:  # type: ignore[override]
        """Whether the method is a net, which has a type of its own."""
        return self.as_it_is or isinstance(self.encoder, Learner)

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """Pictures where it has a format for them, else numbers."""
        return "pictures" if self.table is None else "numbers"

    @property
    def name(self) -> str:
        """Its class, or that it leaves examples as they are."""
        return "examples as they are" if isinstance(self.encoder, nn.Flatten) else type(self.encoder).__name__

    def __call__(self, x: Any, cache: Path | None = None) -> Any:
        """Return its embeddings, or maps where its learner works on maps."""
        inputs = self.inputs(x)
        if self.as_it_is:
            return inputs
        if not isinstance(self.encoder, Learner):
            return embed(self.encoder, inputs, cache=cache or False)
        with torch.no_grad(), in_eval_mode(self.encoder):
            return torch.cat([self.encoder.encode(part) for part in torch.split(inputs, _TOGETHER)])

    def reads_words(self, column: str) -> bool:
        """Say whether the column held words in the fit."""
        return self.table is not None and column in self.table.words

    def inputs(self, x: Any) -> Tensor:
        """Return the columns, or the pictures in their format, or an array as it is, from 0 to 1 where it was bytes."""
        if self.table is not None:
            return self.table.plain(x).float()
        if self.format is not None:
            return self.format.read(x)
        if isinstance(x, list) and all(hasattr(one, "shape") for one in x):
            x = torch.stack([torch.as_tensor(one) for one in x])
        if isinstance(x, list):
            raise ValueError(
                "an encoder of your own needs to know what pictures look like that come from files: pass "
                "picture=PictureFormat(size, mode)."
            )
        array = torch.as_tensor(x)
        return array / 255 if array.dtype == torch.uint8 else array.float()


def features_for(x: Any, encoder: str | Path | nn.Module | None, picture: PictureFormat | None) -> Features:
    """Return how examples like these become rows.

    Args:
        x: the examples of a fit.
        encoder: a name on the hub, a folder with a model, a module of one's own, or None for what needs none.
        picture: what a module of one's own expects of pictures.

    Raises:
        ValueError: the encoder is not for examples of this kind.
    """
    kind = kind_of(x)
    table = Table.of(x) if kind == "numbers" else None
    if isinstance(encoder, nn.Module):
        if kind == "texts":
            raise ValueError(
                "a module of one's own embeds numbers or pictures; found texts. Pass the name or the folder of a sentence "
                "encoder."
            )
        if table is not None and picture is not None:
            raise ValueError(
                f"the encoder reads pictures, {picture.size} wide, as picture= says; found numbers. Pass pictures, or leave "
                "the encoder out."
            )
        return Own(encoder, picture, table)
    if table is not None:
        if encoder is not None:
            raise ValueError(
                f"an encoder by name is for pictures and texts; found {encoder!r} with numbers. Leave it out, or pass "
                "a module."
            )
        return Numbers(table)
    if kind == "texts":
        return sentence_features(encoder)
    return picture_features(encoder)


def sentence_features(encoder: str | Path | None) -> Features:
    """Return how texts become rows: by a sentence encoder, or where none is named or installed by their words."""
    from kshot.nets.sentence_encoder import SentenceEncoder

    if encoder == MINILM:
        return PretrainedTexts(MINILM, SentenceEncoder.minilm())
    if encoder is not None:
        return PretrainedTexts(str(encoder), SentenceEncoder.from_pretrained(encoder))
    try:
        return sentence_features(MINILM)
    except ImportError:
        return Words()


def picture_features(encoder: str | Path | None) -> Features:
    """Return how pictures become rows: by a picture encoder, or with a warning where none is named."""
    from kshot.nets.picture_encoder import PictureEncoder

    if encoder is not None:
        return PretrainedPictures(str(encoder), PictureEncoder.from_pretrained(encoder))
    warnings.warn(
        "pictures are compared as tiny pictures, since no encoder was named: pass encoder='facebook/dinov2-small', which is "
        "fetched once, a folder with such a model, or an encoder that kshot trained.",
        stacklevel=4,
    )
    return Thumbnails()
