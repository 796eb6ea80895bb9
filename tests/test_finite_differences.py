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
