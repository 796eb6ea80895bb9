"""Every answer is derived once more, from the words alone, by a reader that knows nothing of the generator."""

import re
from typing import get_args

import numpy as np
import pytest
import torch

from kshot.tasks.stories import VOCABULARY, Kind, Stories, words

KINDS: tuple[Kind, ...] = get_args(Kind)
SINGULAR = {"cats": "cat", "mice": "mouse", "sheep": "sheep", "wolves": "wolf"}
TAKES, DROPS = {"took", "got", "grabbed", "fetched"}, {"dropped", "left", "discarded", "released"}


class Reader:
    """Reads sentences one by one, and answers questions about them."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}  # of people
        self.holders: dict[str, str] = {}  # of things
        self.trails: dict[str, list[str]] = {}  # the places of each thing, one after another
        self.kinds: dict[str, str] = {}
        self.fears: dict[str, str] = {}

    def read(self, sentence: str) -> None:
        if found := re.fullmatch(r"(\w+) (?:went|moved|walked|travelled) to the (\w+)", sentence):
            person, place = found.groups()
            assert self.places.get(person) != place, "nobody walks to where they are"
            self.places[person] = place
            for thing, holder in self.holders.items():
                if holder == person:
                    self.trails[thing].append(place)
        elif found := re.fullmatch(r"(\w+) are afraid of (\w+)", sentence):
            self.fears[SINGULAR[found[1]]] = found[2]
        elif found := re.fullmatch(r"(\w+) is a (\w+)", sentence):
            self.kinds[found[1]] = found[2]
        else:
            self.handle(sentence)

    def handle(self, sentence: str) -> None:
        found = re.fullmatch(r"(\w+) (\w+) the (\w+)(?: there)?", sentence)
        assert found is not None, sentence
        person, verb, thing = found.groups()
        place = self.places[person]
        trail = self.trails.setdefault(thing, [place])
        assert trail[-1] == place, "a thing is taken and dropped where it is"
        if verb in TAKES:
            assert thing not in self.holders, "a thing is held by one at a time"
            self.holders[thing] = person
        else:
            assert verb in DROPS, sentence
            assert self.holders.pop(thing) == person, "only what is held is dropped"

    def answer(self, question: str) -> str:
        if found := re.fullmatch(r"where is (\w+)", question):
            return self.places[found[1]]
        if found := re.fullmatch(r"where is the (\w+)", question):
            return self.trails[found[1]][-1]
        if found := re.fullmatch(r"where was the (\w+) before the (\w+)", question):
            trail = self.trails[found[1]]
            last = max(i for i, place in enumerate(trail) if place == found[2] and i > 0)
            return trail[last - 1]
        if found := re.fullmatch(r"is (\w+) in the (\w+)", question):
            return "yes" if self.places[found[1]] == found[2] else "no"
        found = re.fullmatch(r"what is (\w+) afraid of", question)
        assert found is not None, question
        return self.fears[self.kinds[found[1]]]


def told(story: torch.Tensor) -> list[str]:
    return [words(sentence) for sentence in story if sentence.any()]


@pytest.mark.parametrize("sentences", [None, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_follows_from_the_words(kind: Kind, sentences: int | None) -> None:
    source = Stories(kind, sentences, questions=2, seed=3)
    for task in source.__getitems__(range(500)):
        reader = Reader()
        for sentence in told(task.support.x):
            reader.read(sentence)
        for question, y in zip(task.query.x, task.query.y, strict=True):
            assert y.sum() == 1
            assert VOCABULARY[int(y.argmax())] == reader.answer(words(question))


def test_a_reader_of_other_words_comes_to_other_answers() -> None:
    task = Stories("one_fact", sentences=4, seed=1)[3]
    reader = Reader()
    for sentence in told(task.support.x):
        reader.read(sentence)
    right = reader.answer(words(task.query.x[0]))
    reader.read(f"{words(task.query.x[0]).split()[-1]} went to the {'attic' if right != 'attic' else 'cellar'}")
    assert reader.answer(words(task.query.x[0])) != right


@pytest.mark.parametrize("kind", KINDS)
def test_item_i_depends_on_seed_and_i_alone(kind: Kind) -> None:
    source = Stories(kind, 8, seed=5)
    whole, some = source.sample(np.arange(200)), source.sample(np.array([7, 150, 3]))
    for one, other in zip((*whole.support, *whole.query), (*some.support, *some.query), strict=True):
        assert torch.equal(one[[7, 150, 3]], other)
    other_seed = Stories(kind, 8, seed=6).sample(np.arange(200))
    assert not torch.equal(other_seed.support.x, whole.support.x)


def test_stories_without_anything_to_ask_are_told_anew() -> None:
    tasks = Stories("three_facts", 4).sample(np.arange(300))  # it takes three sentences, in one order of many
    assert (tasks.query.y.sum(-1) == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_padding(kind: Kind) -> None:
    (support, y), (query, answers) = Stories(kind, questions=3).sample(np.arange(300))
    assert (support.dtype, query.dtype) == (torch.int64, torch.int64)
    assert y.shape == (*support.shape[:2], 0)
    assert query.shape == (300, 3, support.shape[-1])
    assert answers.shape == (300, 3, len(VOCABULARY))
    for x in (support, query):
        filled = (x > 0).int()
        assert (filled.diff(dim=-1) <= 0).all(), "zeros stand behind the last word"
    there = support.any(-1).int()
    assert (there.diff(dim=-1) <= 0).all(), "rows of zeros stand behind the last sentence"
    count = there.sum(-1)
    assert count.max() == support.shape[1]
    assert count.min() == 8 if kind == "deduction" else count.min() < 8


@pytest.mark.parametrize("kind", KINDS)
def test_no_answer_is_far_more_frequent_than_others(kind: Kind) -> None:
    answers = Stories(kind).sample(np.arange(4000)).query.y.sum((0, 1))
    shares = answers[answers > 0] / 4000
    fair = 1 / len(shares)
    assert len(shares) == {"yes_or_no": 2, "deduction": 4}.get(kind, 6)
    assert ((shares - fair).abs() < 0.04).all()


@pytest.mark.parametrize(
    ("kind", "verbs"), [("one_fact", 4), ("two_facts", 12), ("three_facts", 12), ("yes_or_no", 12)]
)
def test_people_walk_and_where_a_thing_may_be_asked_for_handle_things_too(kind: Kind, verbs: int) -> None:
    tasks = Stories(kind).__getitems__(range(200))
    assert len({sentence.split()[1] for task in tasks for sentence in told(task.support.x)}) == verbs


def test_most_sentences_distract() -> None:
    tasks = Stories("one_fact").__getitems__(range(200))
    about = [words(task.query.x[0]).split()[-1] == s.split()[0] for task in tasks for s in told(task.support.x)]
    assert 0.2 < np.mean(about) < 0.5


def test_the_stamp_says_what_was_told() -> None:
    assert Stories("two_facts", 12, 2, seed=4).stamp == {
        "data": "generated stories",
        "tasks": "two_facts, up to 12 sentences, questions: 2",
        "task seed": "4",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "counting"}, "kind.*counting"),
        ({"kind": "one_fact", "sentences": 3}, "at least 4 sentences"),
        ({"kind": "deduction", "sentences": 7}, "at least 8 sentences"),
        ({"kind": "one_fact", "questions": 0}, "and 1 question; found 10 and 0"),
    ],
)
def test_what_cannot_be_told_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):  # the tests' type checker may be the first
        Stories(**arguments)  # type: ignore[arg-type]
