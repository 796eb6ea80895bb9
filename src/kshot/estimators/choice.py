"""Which method fits a user's few examples: cross-validation inside the support set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int
from rich.console import Console
from rich.progress import track
from torch import Tensor

from kshot.core import Learner, one_hot
from kshot.estimators.held_out import folds_of, held_out_predictions, share_with_interval

__all__ = ["FEW", "Candidate", "Choice", "choose"]

FEW = 10  # examples of a class: fewer fit no more than a last layer
_SIMILAR = 0.5  # of the way from guessing to knowing, by nearest means of held-out examples


class Candidate(NamedTuple):
    """A method, and what the examples are for it: ``(n, *features)``."""

    learner: Learner
    rows: Tensor


@dataclass(frozen=True)
class Choice:
    """The method that was chosen, and why.

    Args:
        method: its name.
        accuracies: of each candidate on held-out examples, 0 to 1; empty where nothing could be held out.
        accuracy: of the whole procedure, the choice included, on outer folds that took no part in it; NaN
            where there are none.
        ci95: half-width of its 95 % interval.
        held_out: how many examples it is measured on.
        reason: in words.

    >>> print(Choice("nearest-mean", {}, math.nan, math.nan, 0, "One example of each class."))
    nearest-mean. One example of each class.
    """

    method: str
    accuracies: Mapping[str, float]
    accuracy: float
    ci95: float
    held_out: int
    reason: str

    def __str__(self) -> str:
        if not self.accuracies:
            return f"{self.method}. {self.reason}"
        table = ", ".join(f"{name} {100 * value:.1f} %" for name, value in self.accuracies.items())
        measured = (
            f"{100 * self.accuracy:.1f} % ± {100 * self.ci95:.1f} on {self.held_out} held-out examples, choice included"
        )
        return f"{self.method}: {measured}. {self.reason} Candidates: {table}."


def choose(candidates: Mapping[str, Candidate], labels: Int[Tensor, " n"], ways: int, knows: str) -> Choice:
    """Compare candidates on held-out examples; the first of them wins ties, and where nothing can be held out.

    The winner's accuracy comes from nested folds: for each outer fold the choice is made again without it.

    Args:
        candidates: the methods by name.
        labels: of the examples.
        ways: how many classes there are.
        knows: what examples would have to be like to be told apart, for the reason: ``"what the encoder knows"``.
    """
    first = next(iter(candidates))
    fold = folds_of(labels)
    counts = torch.bincount(labels, minlength=ways)
    if ways < 2 or not bool((fold >= 0).any()):
        asks = "the class mean asks least of the data" if first == "nearest-mean" else "there is no other method"
        why = "One class leaves nothing" if ways < 2 else "One example of each class leaves none"
        reason = f"{why} to compare methods by, and {asks}."
        return Choice(first, {}, math.nan, math.nan, 0, reason)
    right = _right(candidates, labels, ways, fold)
    accuracies = {name: hits.mean().item() for name, hits in right.items()}
    winner = _best(accuracies)
    console = Console(stderr=True)
    folds = track(
        torch.unique(fold[fold >= 0]), "choosing", console=console, transient=True, disable=not console.is_terminal
    )
    outer = torch.cat([_outer(candidates, labels, ways, fold == number) for number in folds])
    share, half_width = share_with_interval(int(outer.sum()), len(outer))
    return Choice(winner, accuracies, share, half_width, len(outer), _reason(counts, accuracies[first], ways, knows))


def _right(candidates: Mapping[str, Candidate], labels: Tensor, ways: int, fold: Tensor) -> dict[str, Tensor]:
    """Return for each candidate which held-out examples it answers right, as zeros and ones."""
    y = one_hot(labels, ways)
    answers = {
        name: held_out_predictions(learner, rows, y.to(rows.dtype), fold).argmax(1)
        for name, (learner, rows) in candidates.items()
    }
    return {name: (answer == labels[fold >= 0]).double() for name, answer in answers.items()}


def _outer(candidates: Mapping[str, Candidate], labels: Tensor, ways: int, apart: Tensor) -> Tensor:
    """Return which examples of an outer fold are answered right by the method that is chosen without them."""
    fold, winner = folds_of(labels[~apart], folds=3), next(iter(candidates))  # fewer, as each is a fit of each method
    if bool((fold >= 0).any()):
        inner = {name: Candidate(learner, rows[~apart]) for name, (learner, rows) in candidates.items()}
        right = _right(inner, labels[~apart], ways, fold)
        winner = _best({name: hits.mean().item() for name, hits in right.items()})
    return _right({winner: candidates[winner]}, labels, ways, torch.where(apart, 0, -1))[winner]


def _best(accuracies: Mapping[str, float]) -> str:
    return max(accuracies, key=lambda name: accuracies[name])


def _reason(counts: Tensor, nearest_mean: float, ways: int, knows: str) -> str:
    shots = int(counts.median())
    known = (nearest_mean - 1 / ways) / (1 - 1 / ways) > _SIMILAR
    amount = f"Few examples ({shots} of a class)" if shots < FEW else f"Many examples ({shots} of a class)"
    likeness = f"{'like' if known else 'unlike'} {knows}"
    advice = {
        (True, True): "a last layer on frozen features is what such data can bear.",
        (
            True,
            False,
        ): "no last layer can add what the features lack: another encoder would help more than another method.",
        (False, True): "a last layer is enough, and fine-tuning the last blocks may add a little.",
        (False, False): "there is enough to fine-tune the encoder, and reason to.",
    }
    return f"{amount}, {likeness}: {advice[shots < FEW, known]}"
