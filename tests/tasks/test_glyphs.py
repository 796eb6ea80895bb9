"""The invented alphabets: the same bits everywhere, readable, and no gift to a learner that compares pixels."""

import hashlib
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from kshot.evaluation import evaluate
from kshot.learners.metric import Prototypical
from kshot.tasks.episodes import Episodes
from kshot.tasks.glyphs import glyphs

SPLITS = {"train": 30, "val": 5, "test": 10}  # alphabets
HANDS = 20
# The first 64 bits of sha256. Before it is rounded, no number in the drawing lies within 1e-7 of where it would be
# rounded the other way, and what follows is exact: an error in a sine's last bits cannot reach a pixel.
CHECKSUMS = {"train": "e199e3bb1b780136", "val": "95286fdc7e2d22dd", "test": "57e85a683ce4093b"}


def pages(split):
    """Return the drawings ``(characters, hands, pixels)`` as whole numbers."""
    return glyphs(split).x.flatten(1).long().unflatten(0, (-1, HANDS))


@pytest.mark.parametrize("split", SPLITS)
def test_drawings_are_small_grey_pictures(split):
    data = glyphs(split)
    assert data.x.dtype == torch.uint8
    assert data.x.shape == (HANDS * len(data.classes), 1, 28, 28)
    assert data.rotations == "none"
    assert data.stamp == {"data": "glyphs", "split": split}


@pytest.mark.parametrize("split", SPLITS)
def test_every_character_is_written_by_all_hands(split):
    assert (glyphs(split).sizes == HANDS).all()


@pytest.mark.parametrize(("split", "alphabets"), SPLITS.items())
def test_alphabets_have_20_to_26_characters(split, alphabets):
    data = glyphs(split)
    names, sizes = np.unique(np.asarray(data.groups), return_counts=True)
    assert len(names) == alphabets
    assert set(sizes.tolist()) <= set(range(20, 27))
    assert len(set(data.classes)) == len(data.classes)
    assert all(name.startswith(f"{group}/character") for name, group in zip(data.classes, data.groups, strict=True))


@pytest.mark.parametrize(("one", "other"), list(combinations(SPLITS, 2)))
def test_splits_share_no_alphabet_and_no_class(one, other):
    one, other = glyphs(one), glyphs(other)
    assert not set(one.groups) & set(other.groups)
    assert not set(one.classes) & set(other.classes)


def test_splits_share_no_drawing():
    drawings = [bytes(picture) for split in SPLITS for picture in glyphs(split).x.numpy()]
    assert len(set(drawings)) == len(drawings)


@pytest.mark.parametrize("split", SPLITS)
def test_every_drawing_has_ink_and_fits_the_paper(split):
    x = glyphs(split).x[:, 0]
    black = (x > 127).sum((1, 2))
    assert black.min() >= 10  # pixels
    assert black.max() < 28 * 28 / 3
    edge = torch.cat([x[:, [0, -1]].flatten(1), x[:, :, [0, -1]].flatten(1)], 1)
    assert edge.max() < 8  # of 255: at most a trace of the pen's blur


def test_second_call_is_free():
    assert glyphs("val") is glyphs("val")


def test_generation_is_deterministic_and_leaves_the_global_generators_alone():
    first = glyphs("val")
    glyphs.cache_clear()
    torch.manual_seed(1)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    second = glyphs("val")
    assert torch.equal(first.x, second.x)
    assert first.classes == second.classes
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize("split", SPLITS)
def test_every_machine_draws_the_same_bits(split):
    assert hashlib.sha256(glyphs(split).x.numpy().tobytes()).hexdigest()[:16] == CHECKSUMS[split]


def test_no_two_hands_write_a_character_alike():
    x = pages("test").double()
    distance = torch.cdist(x, x) + 1e9 * torch.eye(HANDS)
    assert distance.min() > 255  # more than one pixel turned from white to black


def test_characters_of_one_alphabet_are_distinct():
    """The mean of ten hands is nearest to that of the other ten hands of the same character, nearly always."""
    x, groups = pages("train").double(), np.asarray(glyphs("train").groups)
    hits = []
    for name in np.unique(groups):
        here = x[torch.from_numpy(groups == name)]
        nearest = torch.cdist(here[:, ::2].mean(1), here[:, 1::2].mean(1)).argmin(1)
        hits += (nearest == torch.arange(len(here))).tolist()
    assert np.mean(hits) > 0.95  # chance is below 5 %


def test_pixels_do_not_give_the_classes_away():
    result = evaluate(Prototypical(nn.Flatten()), Episodes(glyphs("test"), ways=5, shots=1, length=300))
    assert result.mean + result.ci95 < 0.6
    assert result.mean - result.ci95 > 0.4  # and yet they are not noise


def test_unknown_split_is_refused():
    # The ValueError that users meet is a TypeError under the type checker of these tests.
    with pytest.raises((ValueError, TypeError), match="split"):
        glyphs("validation")
