"""Proto-MAML begins as prototypical networks, and its steps are those of autograd."""

import pytest
import torch
from torch import nn

from kshot.core import Batch, Episode, one_hot
from kshot.learners.gradient import ProtoMAML
from kshot.learners.metric import Prototypical


def task(ways: int = 3) -> Episode:
    labels = torch.arange(ways).repeat(2)
    support = Batch(torch.randn(2 * ways, 5).double() + labels[:, None], one_hot(labels, ways).double())
    return Episode(support, Batch(torch.randn(4, 5).double(), one_hot([0, 1, 0, 1], ways).double()))


def test_without_a_step_it_is_prototypical_networks() -> None:
    body, (support, query) = nn.Linear(5, 4).double(), task()
    ours, theirs = ProtoMAML(body, 0.1, 0), Prototypical(body)
    prototypes = theirs.adapt(Batch(body(support.x), support.y))
    torch.testing.assert_close(
        ours.predict(ours.adapt(support), query.x).log_softmax(1),
        theirs.predict(prototypes, body(query.x)).log_softmax(1),
    )


def test_its_meta_gradient_is_that_of_plain_autograd() -> None:
    body, one = nn.Linear(5, 4).double(), task()
    learner = ProtoMAML(body, 0.3, 2)
    found = torch.autograd.grad(learner.meta_loss([one]), list(body.parameters()))

    (x, y), (qx, qy) = one
    prototypes = y.T @ body(x) / y.sum(0)[:, None]
    # Apart from those in the prototypes: a step holds the last layer fixed.
    weight, bias = body.weight * 1, body.bias * 1
    head, head_bias = 2 * prototypes, -prototypes.square().sum(1)
    for _ in range(2):
        logits = (x @ weight.T + bias) @ head.T + head_bias
        loss = torch.nn.functional.cross_entropy(logits, y)
        gradients = torch.autograd.grad(loss, (weight, bias, head, head_bias), create_graph=True)
        stepped = (w - 0.3 * g for w, g in zip((weight, bias, head, head_bias), gradients, strict=True))
        weight, bias, head, head_bias = stepped
    loss = torch.nn.functional.cross_entropy((qx @ weight.T + bias) @ head.T + head_bias, qy)
    for one_gradient, expected in zip(found, torch.autograd.grad(loss, list(body.parameters())), strict=True):
        torch.testing.assert_close(one_gradient, expected)


def test_a_class_without_an_example_is_finite() -> None:
    one = task()
    support = Batch(one.support.x, one.support.y * torch.tensor([1.0, 1.0, 0.0]).double())
    assert ProtoMAML(nn.Linear(5, 4).double(), 0.1).meta_loss([Episode(support, one.query)]).isfinite()


def test_steps_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 0; found -1"):
        ProtoMAML(nn.Identity(), 0.1, -1)
