"""Metric learners against their papers' equations, at their edges, and what each of them is for."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from kshot.core import Batch, Episode, Learner, one_hot
from kshot.learners.metric import (
    Correspondence,
    FullContext,
    Mahalanobis,
    Matching,
    OpenSet,
    Prototypical,
    Relation,
    Siamese,
    SoftKMeans,
    WeightedL1,
    distances,
)
from kshot.learners.metric.siamese import contrastive, n_pair, triplet, verification
from kshot.nets.norm import BatchStatisticsNorm


def score() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1))


class Places(nn.Module):
    """Compares rows of four numbers as two places of two channels."""

    def __init__(self) -> None:
        super().__init__()
        self.distance = Correspondence(2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        distances: torch.Tensor = self.distance(x.view(-1, 2, 2, 1), y.view(-1, 2, 2, 1))
        return distances


LEARNERS: dict[str, Callable[[], Learner]] = {
    "prototypical": lambda: Prototypical(nn.Identity()),
    "Mahalanobis": lambda: Mahalanobis(nn.Identity()),
    "soft k-means": lambda: SoftKMeans(nn.Identity(), distractors=True),
    "transductive soft k-means": lambda: SoftKMeans(nn.Identity(), transductive=True),
    "matching": lambda: Matching(nn.Identity()),
    "matching in context": lambda: Matching(nn.Identity(), context=FullContext(4)),
    "siamese": lambda: Siamese(nn.Identity(), WeightedL1(4)),
    "siamese, Euclidean": lambda: Siamese(nn.Identity(), distances.euclidean, contrastive(1.0)),
    "siamese, triplet": lambda: Siamese(nn.Identity(), distances.squared_euclidean, triplet(1.0)),
    "siamese, n-pair": lambda: Siamese(nn.Identity(), distances.squared_euclidean, n_pair),
    "siamese, correspondence": lambda: Siamese(nn.Identity(), Places()),
    "relation": lambda: Relation(nn.Identity(), score()),
    "open set": lambda: OpenSet(Prototypical(nn.Identity())),
}


def batch(ways: int, each: int, dtype: torch.dtype = torch.float32) -> Batch:
    labels = torch.arange(ways).repeat(each)
    return Batch(torch.randn(ways * each, 4, dtype=dtype) + labels[:, None], one_hot(labels, ways).to(dtype))


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize(("ways", "shots", "queries"), [(1, 1, 1), (5, 1, 1), (2, 50, 3), (1000, 1, 1)])
def test_loss_and_gradient_are_finite_at_any_size(name: str, ways: int, shots: int, queries: int) -> None:
    support, query = batch(ways, shots), batch(ways, queries)
    if ways > 100:
        query = Batch(query.x[:5], query.y[:5])
    finite(LEARNERS[name](), Episode(support, query))


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_loss_and_gradient_are_finite_where_all_examples_are_the_same(name: str, value: float) -> None:
    y = one_hot([0, 1, 2, 0], 3)
    x = torch.full((4, 4), value)
    finite(LEARNERS[name](), Episode(Batch(x, y), Batch(x.clone(), y)))


@pytest.mark.parametrize("name", LEARNERS)
def test_loss_and_gradient_are_finite_where_a_class_has_no_example(name: str) -> None:
    support, query = batch(3, 2), batch(3, 2)
    finite(LEARNERS[name](), Episode(Batch(support.x, support.y * torch.tensor([1.0, 1.0, 0.0])), query))


def finite(learner: Learner, task: Episode) -> None:
    task.support.x.requires_grad_()
    loss = learner.meta_loss([task])
    loss.backward()
    assert loss.isfinite()
    assert task.support.x.grad is not None
    assert task.support.x.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in LEARNERS if "context" not in name])
def test_permuted_classes_permute_the_predictions(name: str) -> None:
    learner, support, query = LEARNERS[name]().double(), batch(4, 3, torch.float64), batch(4, 2, torch.float64)
    order = [2, 0, 3, 1]
    straight = learner.predict(learner.adapt(support), query.x)
    permuted = learner.predict(learner.adapt(Batch(support.x, support.y[:, order])), query.x)
    torch.testing.assert_close(permuted, straight[:, order])


DUPLICATES_COUNT = {"Mahalanobis", "matching", "matching in context", "relation", "transductive soft k-means"}


@pytest.mark.parametrize("name", LEARNERS)
def test_whether_duplicating_the_support_set_changes_predictions(name: str) -> None:
    """A mean, or a best pair, is what it was; a covariance, attention with a context and a sum are not."""
    learner, support, query = LEARNERS[name]().double(), batch(3, 2, torch.float64), batch(3, 2, torch.float64)
    twice = Batch(torch.cat([support.x, support.x]), torch.cat([support.y, support.y]))
    once, again = (learner.predict(learner.adapt(s), query.x).softmax(-1) for s in (support, twice))
    changed = not torch.allclose(once, again, rtol=1e-9)
    assert changed == (name in DUPLICATES_COUNT - {"matching"}), (
        "matching attends twice as much to each, to the same sum"
    )


def test_matching_is_attention_over_labels() -> None:
    support, query = batch(3, 2, torch.float64), batch(3, 1, torch.float64)
    found = Matching(nn.Identity()).double().predict(Batch((support.x, support.x), support.y), query.x).softmax(-1)
    cosines = nn.functional.cosine_similarity(query.x[:, None], support.x, dim=-1)
    torch.testing.assert_close(found, cosines.softmax(-1) @ support.y)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_matching_refuses_a_temperature_that_has_no_logarithm(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above zero"):
        Matching(nn.Identity(), temperature=temperature)


@pytest.mark.parametrize(
    "name", ["prototypical", "matching", "matching in context", "siamese", "soft k-means", "Mahalanobis"]
)
def test_without_any_example_all_classes_are_alike(name: str) -> None:
    learner = LEARNERS[name]()
    predictions = learner.predict(learner.adapt(Batch(torch.zeros(0, 4), torch.zeros(0, 3))), torch.randn(5, 4))
    assert torch.equal(predictions.softmax(1), torch.full((5, 3), 1 / 3))


def test_full_context_is_what_the_paper_writes() -> None:
    context = FullContext(4, steps=2).double()
    z, f = torch.randn(5, 4).double(), torch.randn(3, 4).double()
    forwards, backwards = context.both_ways(z)[0].chunk(2, -1)
    g = context.support(z)
    torch.testing.assert_close(g, forwards + backwards + z)
    rows = []
    for query in f:
        h, c, r = query, torch.zeros(4).double(), g.mean(0)
        for _ in range(2):
            output, c = context.reading(torch.cat([query, r])[None], (h[None], c[None]))
            output, c = output[0], c[0]
            h = output + query
            r = sum(weight * one for weight, one in zip((g @ h).softmax(0), g, strict=True))
        rows.append(h)
    torch.testing.assert_close(context.queries(f, g), torch.stack(rows))


def test_siamese_takes_the_best_pair() -> None:
    learner = Siamese(nn.Identity(), distances.manhattan)
    state = learner.adapt(Batch(torch.tensor([[0.0], [9.0], [4.0]]), one_hot([0, 0, 1], 2)))
    assert learner.predict(state, torch.tensor([[8.0]])).tolist() == [[-1.0, -4.0]]


def test_a_pair_of_an_unlabelled_example_is_neither_kind() -> None:
    learner, support, query = Siamese(nn.Identity(), WeightedL1(4)), batch(3, 2), batch(3, 2)
    more = Batch(torch.cat([support.x, torch.randn(2, 4)]), torch.cat([support.y, torch.zeros(2, 3)]))
    torch.testing.assert_close(learner.task_loss(Episode(more, query)), learner.task_loss(Episode(support, query)))


def test_verification_is_the_cross_entropy_of_pairs() -> None:
    d, same = torch.randn(4, 6), torch.rand(4, 6).round()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        -d, same, weight=same / same.sum() / 2 + (1 - same) / (1 - same).sum() / 2, reduction="sum"
    )
    torch.testing.assert_close(verification(d, same, 1 - same), expected)


def test_triplet_compares_pairs_of_one_query() -> None:
    d, same = torch.tensor([[1.0, 3.0, 0.5], [2.0, 2.0, 9.0]]), torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    expected = (max(0, 1 - 3 + 1) + max(0, 1 - 0.5 + 1) + max(0, 2 - 2 + 1) + max(0, 2 - 9 + 1)) / 4
    assert triplet(1.0)(d, same, 1 - same).item() == expected


def test_n_pair_sets_each_pair_of_one_class_against_all_pairs_of_two_of_either_example() -> None:
    d, same = torch.randn(3, 4), torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    terms = []
    for rows, labels in ((d, same), (d.T, same.T)):
        for anchor, positive in labels.nonzero().tolist():
            others = rows[anchor][labels[anchor] == 0]
            terms.append((1 + (rows[anchor, positive] - others).exp().sum()).log())
    torch.testing.assert_close(n_pair(d, same, 1 - same), torch.stack(terms).mean())


def test_n_pair_has_finite_second_derivatives_where_a_row_has_no_pair_of_two_classes() -> None:
    d = torch.randn(2, 2).double().requires_grad_()
    same = torch.tensor([[1.0, 1.0], [1.0, 0.0]]).double()
    assert torch.autograd.gradgradcheck(lambda d: n_pair(d, same, 1 - same), d)


def test_mahalanobis_shrinks_the_covariance_of_a_class_towards_that_of_the_task() -> None:
    support, query = batch(2, 3, torch.float64), batch(2, 1, torch.float64)
    learner = Mahalanobis(nn.Identity())
    columns = []
    for way in range(2):
        members = support.x[support.y[:, way] == 1]
        share = len(members) / (len(members) + 1)
        covariance = share * members.T.cov() + (1 - share) * support.x.T.cov() + torch.eye(4)
        gaussian = torch.distributions.MultivariateNormal(members.mean(0), covariance)
        constant = -gaussian.entropy() + 2  # what the density has beside the distance: log det and 2 pi
        columns.append(gaussian.log_prob(query.x) - constant)
    found = learner.predict(learner.adapt(support), query.x)
    torch.testing.assert_close(found, torch.stack(columns, 1), rtol=1e-6, atol=1e-6)


def test_unlabelled_examples_move_prototypes_towards_the_truth() -> None:
    truth = torch.tensor([[-2.0], [2.0]])
    unlabelled = (truth + 0.3 * torch.randn(2, 40).unsqueeze(-1).mT.reshape(2, 40)).reshape(-1, 1)
    support = Batch(
        torch.cat([torch.tensor([[-3.0], [1.0]]), unlabelled]), torch.cat([one_hot([0, 1], 2), torch.zeros(80, 2)])
    )
    supervised, refined = (kind(nn.Identity()).adapt(support).means for kind in (Prototypical, SoftKMeans))
    assert (refined - truth).abs().max() < 0.2 < (supervised - truth).abs().max()


def test_the_distractor_cluster_takes_in_what_belongs_to_no_class() -> None:
    labelled, distractors = torch.tensor([[-9.0], [9.0]]), torch.full((50, 1), 1.0)
    support = Batch(torch.cat([labelled, distractors]), torch.cat([one_hot([0, 1], 2), torch.zeros(50, 2)]))
    without, with_cluster = (SoftKMeans(nn.Identity(), distractors=each).adapt(support).means for each in (False, True))
    assert (with_cluster - labelled).abs().max() < 0.01
    assert (without - labelled).abs().max() > 5


def test_transductive_prototypes_move_to_the_queries() -> None:
    support = Batch(torch.tensor([[-1.0], [3.0]]), one_hot([0, 1], 2))
    query = torch.tensor([[1.1]])
    inductive, transductive = (SoftKMeans(nn.Identity(), transductive=each) for each in (False, True))
    state = transductive.adapt(support)
    assert torch.equal(state.means, inductive.adapt(support).means), "without unlabelled examples they start alike"
    alone, among = (transductive.predict(state, q) for q in (query, query.expand(30, 1)))
    assert among[0, 1] > alone[0, 1] > inductive.predict(state, query)[0, 1]


def none_of_these() -> Episode:
    support = batch(2, 3)
    strangers = Batch(torch.full((4, 4), 30.0), torch.zeros(4, 2))
    query = batch(2, 3)
    return Episode(support, Batch(torch.cat([query.x, strangers.x]), torch.cat([query.y, strangers.y])))


def test_open_set_answers_none_of_these() -> None:
    learner, task = OpenSet(Prototypical(nn.Identity()), threshold=-30.0), none_of_these()
    logits = learner.predict(learner.adapt(task.support), task.query.x)
    assert (logits[-4:] < 0).all()
    assert (logits[:-4].amax(1) > 0).all()
    closed = Prototypical(nn.Identity())
    torch.testing.assert_close(logits.softmax(1), closed.predict(closed.adapt(task.support), task.query.x).softmax(1))
    right = (logits[:-4].argmax(1) == task.query.y[:-4].argmax(1)).sum() + 4
    torch.testing.assert_close(learner.loss.metric(logits, task.query.y), right / len(logits))


def test_a_class_alone_has_queries_that_are_not_of_it() -> None:
    learner = OpenSet(Prototypical(nn.Identity()), threshold=-1.0)
    state = learner.adapt(Batch(torch.tensor([[0.0], [0.2]]), torch.ones(2, 1)))
    logits, y = learner.predict(state, torch.tensor([[0.3], [9.0]])), torch.tensor([[1.0], [0.0]])
    expected = nn.functional.binary_cross_entropy_with_logits(logits, y)
    torch.testing.assert_close(learner.loss(logits, y), expected)


def test_the_threshold_is_learned_from_queries_of_none_of_the_classes() -> None:
    learner, task = OpenSet(Prototypical(nn.Identity()), threshold=-6000.0), none_of_these()
    before = learner.loss.metric(learner.predict(learner.adapt(task.support), task.query.x), task.query.y)
    optimizer = torch.optim.SGD(learner.parameters(), lr=1000.0)
    for _ in range(20):
        optimizer.zero_grad()
        learner.meta_loss([task]).backward()
        optimizer.step()
    after = learner.loss.metric(learner.predict(learner.adapt(task.support), task.query.x), task.query.y)
    assert learner.threshold.grad is not None
    assert after > before


def test_relation_sums_the_maps_of_a_class() -> None:
    encoder = nn.Unflatten(1, (1, 2, 2))
    learner = Relation(encoder, nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(3, 1)))
    assert not learner.transductive
    assert Relation(encoder, nn.Sequential(BatchStatisticsNorm(2), nn.Flatten(), nn.Linear(8, 1))).transductive
    support, query = batch(3, 2), batch(3, 1)
    state = learner.adapt(Batch(encoder(support.x), support.y))
    torch.testing.assert_close(state[1], encoder(support.x)[support.y[:, 1] == 1].sum(0))
    pair = torch.cat([state[1], encoder(query.x)[2]])
    torch.testing.assert_close(learner.predict(state, encoder(query.x))[2, 1], learner.relation(pair[None])[0, 0])
