"""Questions about small stories, made on the fly."""

import itertools
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from kshot.core import Batch, Episode, one_hot
from kshot.tasks.keys import uniform
from kshot.tasks.source import TaskSource
from kshot.tasks.story_world import Walk, animals, walk
from kshot.validation import check_choice

__all__ = ["VOCABULARY", "WORDS", "Kind", "Stories", "words"]

Kind: TypeAlias = Literal["one_fact", "two_facts", "three_facts", "yes_or_no", "deduction"]
Integers: TypeAlias = NDArray[np.int64]

WORDS = 7  # of the longest sentence

_ACTORS = ("anna", "bilal", "chloe", "dmitri")
_PLACES = ("attic", "cellar", "harbour", "library", "meadow", "workshop")
_THINGS = ("kettle", "lantern", "violin")
_WALKS = ("went", "moved", "walked", "travelled")
_TAKES = ("took", "got", "grabbed", "fetched")
_DROPS = ("dropped", "left", "discarded", "released")
_PETS = ("gertrude", "jasper", "olive", "rufus")
_KIND = ("cat", "mouse", "sheep", "wolf")
_KINDS = ("cats", "mice", "sheep", "wolves")
_OTHERS = ("a", "afraid", "are", "before", "in", "is", "no", "of", "the", "there", "to", "was", "what", "where", "yes")

VOCABULARY: tuple[str, ...] = (
    "",
    *sorted({*_ACTORS, *_PLACES, *_THINGS, *_WALKS, *_TAKES, *_DROPS, *_PETS, *_KIND, *_KINDS, *_OTHERS}),
)

_SENTENCES: dict[Kind, int] = {"one_fact": 10, "two_facts": 30, "three_facts": 50, "yes_or_no": 20, "deduction": 8}
_FEWEST = 4  # sentences that a question about three facts needs, and one to spare
_STREAMS = 8  # of random numbers, for each attempt at a story


class _Told(NamedTuple):
    story: Integers  # (t, sentences, WORDS)
    questions: Integers  # (t, q, WORDS)
    answers: Integers  # (t, q)
    possible: NDArray[np.bool_]  # (t,) whether there was anything to ask


class Stories(TaskSource):
    """Stories of a few sentences, and questions whose answer is one word.

    The support set is a story, one sentence an example, as word numbers with zeros behind the last word; y has no columns.
    Rows of zeros behind the last sentence are no sentences, and stand there so that stories stack. The query set is
    questions about the whole story, and y is the word that answers. The kinds are those of the tasks 1, 2, 3, 6 and 15 of
    Jason Weston et al. 2015, "Towards AI-complete question answering: a set of prerequisite toy tasks" (bAbI), told anew
    from their description, with other words and other lengths, so that errors are not comparable:

    - ``"one_fact"``: where somebody is, who walked there in some sentence,
    - ``"two_facts"``: where a thing is, which somebody took or dropped somewhere,
    - ``"three_facts"``: where a thing was before it came to some place for the last time,
    - ``"yes_or_no"``: whether somebody is in a place,
    - ``"deduction"``: what an animal is afraid of, given its kind and what each kind is afraid of.

    All other sentences distract.

    Args:
        kind: of the questions.
        sentences: the most sentences of a story; by default 10, 30, 50, 20 and 8. A story ends after any number of them,
            from two on, that allows a question; deduction always takes 8.
        questions: about each story; the same one may come twice.
        seed: of the whole stream of tasks.
        length: how many tasks there are.

    Raises:
        ValueError: an unknown kind, no question, or too few sentences for one.

    >>> task = Stories("one_fact", sentences=4, seed=1)[3]
    >>> [words(sentence) for sentence in task.support.x]
    ['chloe went to the harbour', 'dmitri walked to the library', 'chloe moved to the workshop', '']
    >>> words(task.query.x[0]), VOCABULARY[task.query.y[0].argmax()]
    ('where is dmitri', 'library')
    """

    def __init__(
        self, kind: Kind, sentences: int | None = None, questions: int = 1, seed: int = 0, length: int = 1000
    ) -> None:
        super().__init__(seed, length)
        check_choice("kind", kind, Kind)
        sentences = _SENTENCES[kind] if sentences is None else sentences
        fewest = len(_KINDS) + len(_PETS) if kind == "deduction" else _FEWEST
        if sentences < fewest or questions < 1:
            raise ValueError(
                f"{kind} needs at least {fewest} sentences and 1 question; found {sentences} and {questions}."
            )
        self.kind, self.sentences, self.questions = kind, sentences, questions

    @property
    def stamp(self) -> Mapping[str, str]:
        """The protocol of these tasks."""
        tasks = f"{self.kind}, up to {self.sentences} sentences, questions: {self.questions}"
        return {"data": "generated stories", "tasks": tasks, "task seed": str(self.seed)}

    def sample(self, items: NDArray[np.int64]) -> Episode:
        """Draw the stories of these numbers, stacked."""
        told = self._tell(items, 0)
        for attempt in itertools.count(1):
            again = np.flatnonzero(~told.possible)  # a story in which nobody touches a thing, say, is thrown away
            if not len(again):
                break
            for whole, part in zip(told, self._tell(items[again], attempt), strict=True):
                whole[again] = part
        support = torch.from_numpy(told.story)
        return Episode(
            Batch(support, torch.zeros(*support.shape[:2], 0)),
            Batch(torch.from_numpy(told.questions), one_hot(torch.from_numpy(told.answers), len(VOCABULARY))),
        )

    def _tell(self, items: Integers, attempt: int) -> _Told:
        stream = _STREAMS * attempt
        if self.kind == "deduction":
            return self._animals(items, stream)
        carry = self.kind != "one_fact"
        walked = walk(self.seed, stream, items, self.sentences, len(_ACTORS), len(_THINGS), len(_PLACES), carry)
        told = {"two_facts": walked.things, "three_facts": walked.came_from}.get(self.kind, walked.people)
        drawn = uniform(self.seed, stream + 2, items, 1 + 3 * self.questions)
        # A story ends where there is something to ask, and after its first sentence there is too little.
        ends = _pick(told[:, 1:].max(2) >= 0, drawn[:, :1]) + 1
        known = np.take_along_axis(told, ends[:, :, None], 1)[:, 0]
        asked, other, lie = np.split(drawn[:, 1:], 3, 1)
        subject = _pick(known >= 0, asked)
        answer = np.take_along_axis(known, subject, 1)
        story = _sentences(walked) * (np.arange(self.sentences) <= ends)[:, :, None]
        return _Told(story, *self._question(subject, answer, other, lie < 0.5), known.max(1) >= 0)

    def _question(
        self, subject: Integers, answer: Integers, other: NDArray[np.float64], lie: NDArray[np.bool_]
    ) -> tuple[Integers, Integers]:
        """Put the question in words, and its answer."""
        where = _among(_PLACES, answer)
        if self.kind == "one_fact":
            return _say("where", "is", _among(_ACTORS, subject)), where
        if self.kind == "two_facts":
            return _say("where", "is", "the", _among(_THINGS, subject)), where
        if self.kind == "three_facts":
            thing, place = np.divmod(subject, len(_PLACES))
            return _say("where", "was", "the", _among(_THINGS, thing), "before", "the", _among(_PLACES, place)), where
        elsewhere = (answer + 1 + (other * (len(_PLACES) - 1)).astype(np.int64)) % len(_PLACES)
        place = _among(_PLACES, np.where(lie, elsewhere, answer))
        return _say("is", _among(_ACTORS, subject), "in", "the", place), np.where(lie, _id("no"), _id("yes"))

    def _animals(self, items: Integers, stream: int) -> _Told:
        fears, kind, order = animals(self.seed, stream, items, len(_KINDS), len(_PETS))
        every = np.arange(len(_KINDS))[None].repeat(len(items), 0)
        feared = _say(_among(_KINDS, every), "are", "afraid", "of", _among(_KINDS, fears))
        called = _say(_among(_PETS, np.arange(len(_PETS))[None].repeat(len(items), 0)), "is", "a", _among(_KIND, kind))
        told = np.take_along_axis(np.concatenate([feared, called], 1), order[:, :, None], 1)
        story = np.pad(told, ((0, 0), (0, self.sentences - told.shape[1]), (0, 0)))
        subject = (uniform(self.seed, stream + 3, items, self.questions) * len(_PETS)).astype(np.int64)
        answer = _among(_KINDS, np.take_along_axis(fears, np.take_along_axis(kind, subject, 1), 1))
        questions = _say("what", "is", _among(_PETS, subject), "afraid", "of")
        return _Told(story, questions, answer, np.ones(len(items), bool))


def words(x: Int[Tensor, " words"]) -> str:
    """Return a sentence of word numbers as text.

    >>> words(torch.tensor([VOCABULARY.index(word) for word in ("where", "is", "anna")] + [0, 0]))
    'where is anna'
    """
    return " ".join(VOCABULARY[int(number)] for number in x if number)


def _id(word: str) -> int:
    return VOCABULARY.index(word)


def _among(names: tuple[str, ...], which: Integers) -> Integers:
    """Return the numbers of words; any of them where ``which`` is -1."""
    return np.asarray([_id(name) for name in names], np.int64).take(which)


def _say(*parts: str | Integers) -> Integers:
    """Put words side by side, ``(t, n, WORDS)``, with zeros behind them; a string is the same word everywhere."""
    shape = next(part.shape for part in parts if not isinstance(part, str))
    numbers = [np.full(shape, _id(part)) if isinstance(part, str) else part for part in parts]
    return np.stack([*numbers, *[np.zeros(shape, np.int64)] * (WORDS - len(parts))], -1)


def _pick(allowed: NDArray[np.bool_], unit: NDArray[np.float64]) -> Integers:
    """Return, for each uniform number of ``(t, q)``, the position of one of the allowed of ``(t, n)``; 0 if none is."""
    count = allowed.cumsum(1)
    nth = (unit * count[:, -1:]).astype(np.int64)
    first: Integers = (count[:, None, :] > nth[:, :, None]).argmax(2)
    return first


def _sentences(walked: Walk) -> Integers:
    """Put a walk in words."""
    actor, place, thing = _among(_ACTORS, walked.actor), _among(_PLACES, walked.place), _among(_THINGS, walked.thing)
    there, verb = np.divmod((walked.wording * 2 * len(_WALKS)).astype(np.int64), len(_WALKS))
    walks = _say(actor, _among(_WALKS, verb), "to", "the", place)
    handles = np.where(walked.taken, _among(_TAKES, verb), _among(_DROPS, verb))
    return np.where((walked.thing < 0)[..., None], walks, _say(actor, handles, "the", thing, there * _id("there")))
