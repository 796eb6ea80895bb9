"""The in-context transformer: who sees whom, codes of labels, and what it begins with."""

import pytest
import torch
from torch import Tensor, nn

from kshot.core import Batch, Episode, one_hot
from kshot.learners.memory import InContext

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def small(train: bool = False, **options: int) -> InContext:
    """Return a learner that has left its beginning, where blocks do nothing."""
    learner = InContext(nn.Identity(), 4, **{"width": 8, "heads": 2, "blocks": 2, "code": 6, **options}).double()
    for parameter in learner.parameters():
        nn.init.normal_(parameter, std=0.5)
    return learner.train(train)


def batch(ways: int, each: int = 2, unlabelled: int = 0) -> Batch:
    y = torch.cat([one_hot(torch.arange(ways).repeat(each), ways), torch.zeros(unlabelled, ways)])
    return Batch(torch.randn(len(y), 4, dtype=torch.float64), y.double())


def answer(learner: InContext, support: Batch, queries: Tensor) -> Tensor:
    return learner.predict(learner.adapt(support), queries)


def plain(learner: InContext, support: Batch, query: Tensor) -> Tensor:
    """Return the answer to one query: the tokens of support and query in one pass, under a mask."""
    n, ways = support.y.shape
    labels = support.y @ learner.codes[:ways] @ learner.label.weight.T
    asked = torch.cat([1 - support.y.sum(1), torch.ones(1).double()])[:, None] * learner.unknown
    x = learner.example(torch.cat([support.x, query[None]])) + nn.functional.pad(labels, (0, 0, 0, 1)) + asked
    visible = torch.ones(n + 1, n + 1, dtype=torch.bool)
    visible[:n, n] = False
    for block in learner.blocks:
        q, k, v = block.project(block.before_attention(x)).view(n + 1, 3, 2, 4).permute(1, 2, 0, 3)
        read = nn.functional.scaled_dot_product_attention(q, k, v, visible)
        x = x + block.read(read.transpose(0, 1).reshape(n + 1, 8))
        x = x + block.hidden(block.before_hidden(x))
    z = learner.compared(x)
    means = [z[:n][support.y[:, k] == 1].mean(0) for k in range(ways)]
    return torch.stack([-(z[n] - mean).square().sum() / 8**0.5 for mean in means])


@pytest.mark.parametrize(("ways", "each", "unlabelled"), [(3, 1, 0), (2, 4, 0), (3, 2, 3), (1, 1, 0)])
def test_it_is_a_masked_pass_over_support_and_query(ways: int, each: int, unlabelled: int) -> None:
    learner, support, queries = small(), batch(ways, each, unlabelled), batch(2).x
    expected = torch.stack([plain(learner, support, query) for query in queries])
    torch.testing.assert_close(answer(learner, support, queries), expected, **CLOSE)


def test_it_begins_as_the_nearest_class_mean() -> None:
    learner, support, queries = InContext(nn.Identity(), 4).double().eval(), batch(3), batch(2).x
    z, q = (learner.compared(learner.example(x)) for x in (support.x, queries))
    means = torch.stack([z[support.y[:, k] == 1].mean(0) for k in range(3)])
    expected = -torch.cdist(q, means).square() / 128**0.5
    torch.testing.assert_close(answer(learner, support, queries), expected, **CLOSE)


def test_labels_are_read_beside_the_examples() -> None:
    """Tokens of a class move with the labels of the others, which a mean of embeddings would not see."""
    learner, support, queries = small(), batch(3), batch(2).x
    swapped = Batch(support.x, support.y[:, [0, 2, 1]])
    first = answer(learner, support, queries)[:, 0]
    assert (answer(learner, swapped, queries)[:, 0] - first).norm() > 1e-3 * first.norm()


@pytest.mark.parametrize("unlabelled", [0, 3])
def test_writing_an_example_twice_counts_it_twice_as_one_token(unlabelled: int) -> None:
    learner, support = small(), batch(3, unlabelled=unlabelled)
    twice = learner.adapt(Batch(torch.cat([support.x, support.x[:1]]), torch.cat([support.y, support.y[:1]])))
    for keys, values in twice.blocks:
        torch.testing.assert_close(keys[:, 0], keys[:, -1], **CLOSE)
        torch.testing.assert_close(values[:, 0], values[:, -1], **CLOSE)
    once = learner.adapt(support)
    assert (twice.means[0] - once.means[0]).norm() > 1e-3 * once.means[0].norm()


def test_without_support_no_class_is_likelier() -> None:
    learner = small()
    predictions = answer(learner, Batch(torch.zeros(0, 4).double(), torch.zeros(0, 3).double()), batch(2).x)
    torch.testing.assert_close(predictions.softmax(-1), torch.full_like(predictions, 1 / 3), **CLOSE)


def test_an_unlabelled_example_is_read() -> None:
    learner, support, queries = small(), batch(3), batch(2).x
    more = Batch(torch.cat([support.x, torch.randn(1, 4).double()]), nn.functional.pad(support.y, (0, 0, 0, 1)))
    before = answer(learner, support, queries)
    assert (answer(learner, more, queries) - before).norm() > 1e-3 * before.norm()


def test_codes_are_dealt_out_anew_for_each_task_in_training_alone() -> None:
    learner, support, queries = small(train=True), batch(3), batch(2).x
    task = Episode(support, Batch(queries, batch(3).y[:4]))
    tasks = Episode(*(Batch(torch.stack([b.x] * 2), torch.stack([b.y] * 2)) for b in task))
    one, other = learner.predictions(tasks)
    assert (one - other).norm() > 1e-3 * one.norm()
    torch.manual_seed(1)
    first = learner.predictions(tasks)
    torch.manual_seed(1)
    assert torch.equal(learner.predictions(tasks), first)
    one, other = learner.eval().predictions(tasks)
    assert torch.equal(one, other)


def test_training_on_few_classes_reaches_every_code() -> None:
    learner = small(train=True, max_ways=12)
    used = {tuple(row.tolist()) for _ in range(60) for row in learner._codes_of(3)}
    assert used == {tuple(row.tolist()) for row in learner.codes}


def test_the_codes_are_the_same_in_every_learner_and_kept_with_it() -> None:
    assert torch.equal(small().codes, small().codes)
    assert "codes" in small().state_dict()
    assert torch.linalg.matrix_rank(small(max_ways=6).codes) == 6


def test_more_classes_than_codes_are_refused() -> None:
    learner = small(max_ways=5)
    learner.adapt(batch(5))
    with pytest.raises(ValueError, match=r"max_ways=5 classes; found a task of 6.*max_ways=6 or more"):
        learner.adapt(batch(6))


@pytest.mark.parametrize("size", ["features", "width", "blocks", "heads", "max_ways", "code"])
def test_sizes_below_one_are_refused(size: str) -> None:
    with pytest.raises(ValueError, match="must be at least 1; found"):
        InContext(nn.Identity(), **{"features": 3, size: 0})


def test_embeddings_of_another_size_are_refused() -> None:
    support = batch(2)
    with pytest.raises(ValueError, match="this InContext was built for features="):
        small().adapt(Batch(torch.cat([support.x, support.x], -1), support.y))


def xor(tasks: int, ways: int) -> Episode:
    """Return tasks in which a class is one of the pairs of opposite corners, under random signs."""
    corners = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
    labels = torch.stack([torch.randperm(2).repeat_interleave(2) for _ in range(tasks)])
    x = corners + 0.2 * torch.randn(2, tasks, 4, 2)
    return Episode(*(Batch(one, one_hot(labels, ways)) for one in x))


@pytest.mark.parametrize("steps", [0, 300])
def test_it_learns_what_a_mean_of_embeddings_cannot_tell(steps: int) -> None:
    """The means of both classes are the same at the start: only the context tells them apart."""
    learner = InContext(nn.Identity(), 2, width=16, heads=2, blocks=2, code=8)
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        learner.meta_loss(xor(32, 2)).backward()
        optimizer.step()
    tasks = xor(200, 2)
    accuracy = (learner.eval().predictions(tasks).argmax(-1) == tasks.query.y.argmax(-1)).float().mean()
    assert accuracy > 0.95 if steps else accuracy < 0.9


class Answering(nn.Module):
    """A learner as a function of its weights and a support set."""

    def __init__(self, learner: InContext, y: Tensor, queries: Tensor) -> None:
        super().__init__()
        self.learner, self.y, self.queries = learner, y, queries

    def forward(self, x: Tensor) -> Tensor:
        return answer(self.learner, Batch(x, self.y), self.queries).square().sum()


def test_second_derivatives_under_vmap_are_those_of_a_loop() -> None:
    net, supports = Answering(small(), batch(3).y, batch(2).x), torch.randn(2, 6, 4, dtype=torch.float64)
    weights = dict(net.named_parameters())

    def slope(x: Tensor) -> Tensor:
        gradients = torch.func.grad(lambda w: torch.func.functional_call(net, w, (x,)))(weights)
        return sum((g.square().sum() for g in gradients.values()), torch.tensor(0.0))

    found = []
    for slopes in (torch.func.vmap(slope)(supports), torch.stack([slope(one) for one in supports])):
        gradients = torch.autograd.grad(slopes.sum(), list(weights.values()), allow_unused=True)
        found.append(torch.cat([g.flatten() for g in gradients if g is not None]))
    assert (found[0] - found[1]).norm() < 1e-10 * found[1].norm()
