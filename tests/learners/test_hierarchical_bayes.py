"""MAML read as hierarchical Bayes: few gradient steps on a linear model are the MAP under a Gaussian prior."""

import pytest
import torch
from torch import nn

from kshot.core import Batch
from kshot.learners.gradient import MAML
from kshot.losses import mean_squared_error


@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize("n", [9, 3], ids=["more examples than weights", "fewer"])
def test_gradient_steps_on_a_linear_model_are_the_map_under_a_prior_of_their_size_and_count(n: int, steps: int) -> None:
    """Of -log N(y; X w, s^2) - log N(w; theta, Q), with Q of the same eigenvectors as the Hessian of the loss."""
    torch.manual_seed(0)
    lr, variance, d = 0.05, 0.7, 5
    x, y = torch.randn(n, d).double(), torch.randn(n, 1).double()
    model = nn.Linear(d, 1, bias=False).double()
    theta = model.weight.detach()[0]
    adapted = MAML(model, lr, steps, loss=mean_squared_error).adapt(Batch(x, y))["weight"][0]

    h, vectors = torch.linalg.eigh(2 / n * x.mT @ x)
    assert lr * h.max() < 1
    # Where the data say nothing, h = 0, the step size times the count is the limit.
    q = 2 * variance / n * torch.where(h > 1e-9, ((1 - lr * h) ** -steps - 1) / h.clamp_min(1e-9), lr * steps)
    precision = vectors @ (1 / q).diag() @ vectors.mT
    expected = torch.linalg.solve(x.mT @ x / variance + precision, x.mT @ y[:, 0] / variance + precision @ theta)
    torch.testing.assert_close(adapted, expected)

    wider = vectors @ (0.5 / q).diag() @ vectors.mT  # the prior is this one: another gives other weights
    other = torch.linalg.solve(x.mT @ x / variance + wider, x.mT @ y[:, 0] / variance + wider @ theta)
    assert (adapted - other).norm() > 1e-3 * adapted.norm()
