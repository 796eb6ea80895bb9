"""Small worlds to tell stories of: people who walk about and carry things, and animals who fear each other."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kshot.tasks.keys import choose, random_keys, uniform

__all__ = ["Animals", "Walk", "animals", "walk"]

_WALKS, _TAKES, _DROPS = 1.0, 1.0, 0.3  # how much likelier one is than another, where it is possible
_DRAWS = 4  # random numbers for each sentence of a walk

Integers = NDArray[np.int64]


class Walk(NamedTuple):
    """What happens, ``(t, s)``, and what a reader knows after each sentence; -1 stands for nothing known.

    Args:
        actor: who acts.
        thing: what is taken or dropped; -1 where somebody walks.
        taken: whether it is taken.
        place: where the actor is afterwards.
        wording: a uniform number that chooses between words of one meaning.
        people: ``(t, s, actors)`` where everybody is.
        things: ``(t, s, things)`` where each thing is.
        came_from: ``(t, s, things * places)`` from where a thing last came to a place.
    """

    actor: Integers
    thing: Integers
    taken: NDArray[np.bool_]
    place: Integers
    wording: NDArray[np.float64]
    people: Integers
    things: Integers
    came_from: Integers


def walk(
    seed: int, stream: int, items: Integers, steps: int, actors: int, things: int, places: int, carry: bool
) -> Walk:
    """Let people walk, and where they ``carry`` take and drop what lies where they are; row i depends on items[i] alone.

    Everybody's first sentence is a walk, so that what a reader knows is where everybody mentioned and everything ever
    taken is.
    """
    rows, each = np.arange(len(items)), np.arange(things)
    drawn = uniform(seed, stream, items, _DRAWS * steps).reshape(-1, steps, _DRAWS)
    lies = _whole(uniform(seed, stream + 1, items, things), places)
    people, holder = np.full((len(items), actors), -1), np.full((len(items), things), -1)
    known, came_from = np.full((len(items), things), -1), np.full((len(items), things, places), -1)
    told = []
    for step in range(steps):
        who, act, where, wording = drawn[:, step].T
        actor = _whole(who, actors)
        here = people[rows, actor][:, None]
        thing, taken = _handled(carry & (holder < 0) & (lies == here), holder == actor[:, None], act[:, None])
        place = np.where(thing < 0, _elsewhere(where, here[:, 0], places), here[:, 0])
        people[rows, actor] = place
        moved_hands = each == thing[:, None]
        holder = np.where(moved_hands, np.where(taken, actor, -1)[:, None], holder)
        lies = np.where(holder >= 0, np.take_along_axis(people, holder.clip(0), 1), lies)
        row, which = np.nonzero(known != lies)
        came_from[row, which, lies[row, which]] = known[row, which]
        known = np.where(moved_hands | (known >= 0), lies, known)
        trails = came_from.reshape(len(items), -1)
        told.append((actor, thing, taken, place, wording, people.copy(), known, trails.copy()))
    return Walk(*(np.stack(values, 1) for values in zip(*told, strict=True)))


class Animals(NamedTuple):
    """Which kind of animal each kind fears, ``(t, kinds)``, what kind each animal is, ``(t, animals)``, and an order."""

    fears: Integers
    kind: Integers
    order: Integers


def animals(seed: int, stream: int, items: Integers, kinds: int, names: int) -> Animals:
    """Draw animals of some kinds; a kind never fears itself. The order is of all that can be said, fears first."""
    fears = _elsewhere(uniform(seed, stream, items, kinds), np.arange(kinds)[None].repeat(len(items), 0), kinds)
    kind = _whole(uniform(seed, stream + 1, items, names), kinds)
    return Animals(fears, kind, choose(random_keys(seed, stream + 2, items, kinds + names), kinds + names))


def _handled(
    may_take: NDArray[np.bool_], may_drop: NDArray[np.bool_], unit: NDArray[np.float64]
) -> tuple[Integers, NDArray[np.bool_]]:
    """Choose between walking, taking and dropping; return the thing, -1 where somebody walks, and whether it is taken."""
    weights = [np.full_like(unit, _WALKS), _TAKES * may_take, _DROPS * may_drop]
    likely = np.concatenate(weights, 1).cumsum(1)
    action, things = (likely > unit * likely[:, -1:]).argmax(1), may_take.shape[1]
    return np.where(action, (action - 1) % things, -1), (action >= 1) & (action <= things)


def _whole(unit: NDArray[np.float64], below: int) -> Integers:
    return (unit * below).astype(np.int64)


def _elsewhere(unit: NDArray[np.float64], here: Integers, places: int) -> Integers:
    """Return a place other than here, or any where here is -1."""
    return np.where(here < 0, _whole(unit, places), (here + 1 + _whole(unit, places - 1)) % places)
