"""SNAIL against a plain causal pass over support and query, one example at a time and all at once."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.batching import leaves
from kshot.core import Batch, Episode, one_hot
from kshot.learners.memory import SNAIL
from kshot.losses import mean_squared_error
from kshot.nets.causal import CausalAttention, DenseBlock

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def small(length: int = 6) -> SNAIL:
    return SNAIL(nn.Identity(), 4, 3, length, attention=((5, 4), (6, 5), (7, 6)), filters=3).double()


def batch(n: int) -> Batch:
    return Batch(torch.randn(n, 4, dtype=torch.float64), one_hot(torch.randint(3, (n,)), 3).double())


def plain(learner: SNAIL, support: Batch, query: Tensor) -> Tensor:
    """Return the answer to one query, by whole layers over the whole sequence: convolutions and masked attention."""
    x = torch.cat([torch.cat([support.x, query[None]]), F.pad(support.y, (0, 0, 0, 1))], 1)
    flat = [part for part in learner.layers.modules() if isinstance(part, CausalAttention | DenseBlock)]
    assert [type(part) for part in flat].count(CausalAttention) == 3
    for part in flat:
        if isinstance(part, DenseBlock):
            kernel = torch.stack([part.earlier.weight, part.now.weight], -1)
            padded = F.pad(x.mT, (part.dilation, 0))[None]
            f, g = F.conv1d(padded, kernel, part.now.bias, dilation=part.dilation)[0].mT.chunk(2, 1)
            found = f.tanh() * g.sigmoid()
        else:
            q, k, v = part.project(x).split(part.sizes, 1)
            found = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
        x = torch.cat([x, found], 1)
    answer: Tensor = learner.answer(x[-1])
    return answer


@pytest.mark.parametrize("n", [0, 1, 5, 20])
def test_it_is_a_causal_pass_over_support_and_query(n: int) -> None:
    """With length 6, a support of 20 is longer than it was built for."""
    learner, support, queries = small(), batch(n), batch(4).x
    expected = torch.stack([plain(learner, support, query) for query in queries])
    torch.testing.assert_close(learner.predict(learner.adapt(support), queries), expected, **CLOSE)
    state = learner.init()
    for x, y in zip(*support, strict=True):
        state = learner.update(state, Batch(x[None], y[None]))
    torch.testing.assert_close(learner.predict(state, queries), expected, **CLOSE)


def test_a_state_that_goes_on_is_a_new_one() -> None:
    learner, support, queries = small(), batch(5), batch(4).x
    state = learner.adapt(support)
    before = learner.predict(state, queries)
    learner.update(state, batch(3))
    assert torch.equal(learner.predict(state, queries), before)


def test_writing_an_example_twice_is_another_sequence() -> None:
    learner, support, queries = small(), batch(5), batch(4).x
    state = learner.adapt(support)
    last = Batch(support.x[-1:], support.y[-1:])
    again = learner.predict(learner.update(state, last), queries)
    assert (again - learner.predict(state, queries)).norm() > 1e-3 * again.norm()
    twice = Batch(torch.cat([support.x, last.x]), torch.cat([support.y, last.y]))
    torch.testing.assert_close(again, learner.predict(learner.adapt(twice), queries), **CLOSE)


def test_the_convolutions_keep_no_more_than_they_reach() -> None:
    learner = small(length=6)
    sizes = [[len(leaf) for leaf in leaves(learner.adapt(batch(n)))] for n in (9, 50)]
    attention, convolutions = [9, 9], [1, 2, 4]
    assert sizes[0] == [*attention, *convolutions, *attention, *convolutions, *attention]
    assert sum(sizes[1]) - sum(sizes[0]) == 6 * 41


def test_every_example_of_the_support_matters() -> None:
    learner, support, queries = small(), batch(12), batch(2).x
    support.x.requires_grad_()
    (gradient,) = torch.autograd.grad(learner.predict(learner.adapt(support), queries).square().sum(), support.x)
    assert (gradient.abs().amax(1) > 0).all()


def test_another_number_of_classes_is_refused() -> None:
    learner = small()
    with pytest.raises(ValueError, match="built for ways=3; found y with 5 columns"):
        learner.adapt(Batch(torch.zeros(5, 4).double(), torch.eye(5).double()))
    with pytest.raises(ValueError, match="built for features=4; found embeddings of 5"):
        learner.adapt(Batch(torch.zeros(3, 5).double(), torch.eye(3).double()))


@pytest.mark.parametrize("wrong", [{"ways": 0}, {"filters": 0}, {"attention": ()}, {"attention": ((0, 4),)}])
def test_sizes_below_one_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be at least 1; found 0"):
        SNAIL(nn.Identity(), **{"features": 4, "ways": 3, "length": 7, **wrong})


def test_the_papers_sizes() -> None:
    learner = SNAIL(nn.Identity(), 64, 5, 6)
    attention, convolutions = 32 + 128 + 256, 2 * 3 * 128
    assert learner.answer.in_features == 64 + 5 + attention + convolutions


def test_it_learns_tasks_in_which_the_labels_are_drawn_anew() -> None:
    """Two points and their labels: what no fixed classifier can do."""
    torch.manual_seed(0)
    learner = SNAIL(nn.Identity(), 2, 2, 3, attention=((8, 8), (8, 8)), filters=8)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)

    def draw(tasks: int) -> Episode:
        labels = torch.stack([torch.randperm(2) for _ in range(tasks)])
        means = torch.randn(tasks, 2, 2)
        return Episode(
            Batch(means, one_hot(labels, 2)), Batch(means + 0.1 * torch.randn(tasks, 2, 2), one_hot(labels, 2))
        )

    for _ in range(250):
        optimizer.zero_grad()
        learner.meta_loss(draw(32)).backward()
        optimizer.step()
    tasks = draw(200)
    right = learner.predictions(tasks).argmax(-1) == tasks.query.y.argmax(-1)
    assert right.float().mean() > 0.9


def test_it_takes_targets_of_regression() -> None:
    learner = SNAIL(nn.Identity(), 1, 1, 6, mean_squared_error, attention=((4, 4), (4, 4)), filters=4)
    points = Batch(torch.randn(3, 5, 1), torch.randn(3, 5, 1))
    learner.meta_loss(Episode(points, points)).backward()
    assert learner.answer.weight.grad is not None
