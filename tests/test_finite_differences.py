import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kshot.finite_differences import finite_difference_error

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("loss", "gradient"),
    [
        (lambda p: (p**2).sum(), [2.0, NAN]),
        (lambda p: (p**2).sum(), [INF, 2.0]),
        (lambda p: (p**2).sum() * NAN, [2.0, 2.0]),
        (lambda p: (p**2).sum() * INF, [2.0, 2.0]),
        (lambda p: torch.where(p == 1.0, p, NAN).sum(), [1.0, 1.0]),  # finite at this point alone
    ],
)
def test_what_is_not_finite_is_infinitely_wrong(loss: Callable[[Tensor], Tensor], gradient: list[float]) -> None:
    p, q = torch.ones(2, 2, dtype=torch.float64)
    gradients = {"q": torch.zeros_like(q), "p": torch.tensor(gradient, dtype=torch.float64)}
    error, name = finite_difference_error(lambda: loss(p), {"p": p, "q": q}, gradients)
    assert error == INF
    assert name in gradients
    torch.testing.assert_close(p, torch.ones_like(p))


def test_a_step_size_that_is_close_enough_is_the_last() -> None:
    calls = []
    p = torch.ones(3, dtype=torch.float64)

    def loss() -> Tensor:
        calls.append(len(calls))
        return (p**2).sum()

    def error(gradient: Tensor, enough: float) -> tuple[float, int]:
        calls.clear()
        return finite_difference_error(loss, {"p": p}, {"p": gradient}, enough)[0], len(calls)

    assert error(2 * p, 0.0)[1] == 1 + 2 * 3 * 2  # two directions, three step sizes, two sides
    found, evaluations = error(2 * p, 1e-6)
    assert found < 1e-6
    assert evaluations == 1 + 2 * 2
    found, evaluations = error(2.2 * p, 1e-6)
    assert found > 0.08
    assert evaluations > 1 + 2 * 2


def test_beyond_an_error_nothing_more_is_tried() -> None:
    p, calls = torch.ones(3, dtype=torch.float64), []

    def loss() -> Tensor:
        calls.append(1)
        return (p**2).sum()

    wrong, right = {"first": 3 * p, "second": 3 * p}, {"first": 2 * p, "second": 2 * p}
    parameters = {"first": p, "second": p}
    assert finite_difference_error(loss, parameters, wrong, until=1e-3) == (pytest.approx(1 / 3, rel=1e-3), "first")
    assert len(calls) == 1 + 6  # the loss itself, and one direction at three step sizes
    assert finite_difference_error(loss, parameters, right, 1e-4, until=1e-3)[0] < 1e-4
    assert len(calls) == 7 + 1 + 4 * 2
