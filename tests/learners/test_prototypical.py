import math

import pytest
import torch
from torch import Tensor, nn

from kshot.core import Batch, Episode, one_hot
from kshot.learners.metric import Prototypical
from kshot.learners.metric.distances import squared_euclidean
from kshot.learners.metric.prototypical import Prototypes
from kshot.nets.conv import Conv4


def task(ways: int = 3, shots: int = 2, queries: int = 4) -> Episode:
    def batch(k: int) -> Batch:
        labels = torch.arange(ways).repeat(k)
        return Batch(torch.randn(ways * k, 5).double() + labels[:, None], one_hot(labels, ways).double())

    return Episode(batch(shots), batch(queries))


def encoder() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)).double()


def test_prototypes_are_class_means() -> None:
    x = torch.tensor([[1.0, 0.0], [3.0, 2.0], [10.0, -4.0]])
    prototypes = Prototypical(nn.Identity()).adapt(Batch(x, one_hot([1, 1, 0], 2)))
    assert prototypes.means.tolist() == [[10.0, -4.0], [2.0, 1.0]]


def test_predictions_are_negative_squared_distances() -> None:
    prototypes = Prototypes(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.ones(2))
    logits = Prototypical(nn.Identity()).predict(prototypes, torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
    assert logits.tolist() == [[0.0, -25.0], [-9.0, -16.0]]


def softmax_by_hand(net: nn.Module, episode: Episode) -> Tensor:
    """The loss as the paper writes it: one class, one query at a time."""
    (sx, sy), (qx, qy) = episode
    losses = []
    centres = [net(sx[sy[:, way] == 1]).mean(0) for way in range(sy.shape[1])]
    for x, y in zip(qx, qy, strict=True):
        weights = [(-(net(x) - centre).pow(2).sum()).exp() for centre in centres]
        losses.append(-(weights[int(y.argmax())] / sum(weights)).log())
    return torch.stack(losses).mean()


def test_loss_and_gradient_equal_a_softmax_over_negative_squared_distances() -> None:
    net, episodes = encoder(), [task(), task(2, 3, 1)]
    by_hand = torch.stack([softmax_by_hand(net, episode) for episode in episodes]).mean()
    ours = Prototypical(net).meta_loss(episodes)
    torch.testing.assert_close(ours, by_hand, rtol=1e-10, atol=1e-10)
    for one, other in zip(
        *(torch.autograd.grad(loss, list(net.parameters())) for loss in (ours, by_hand)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_gradients_reach_every_support_and_query_example() -> None:
    (sx, sy), (qx, qy) = task()
    sx.requires_grad_()
    qx.requires_grad_()
    Prototypical(encoder()).meta_loss([Episode(Batch(sx, sy), Batch(qx, qy))]).backward()
    for x in (sx, qx):
        assert x.grad is not None
        assert (x.grad.norm(dim=1) > 0).all()


@pytest.mark.parametrize("ways", [1, 2, 7, 20])
def test_it_takes_any_number_of_ways(ways: int) -> None:
    learner = Prototypical(encoder())
    assert learner.predictions([task(ways)])[0].shape == (4 * ways, ways)


def test_adding_a_class_leaves_the_scores_of_the_others_alone() -> None:
    learner = Prototypical(nn.Identity())
    (x, y), query = task(4)
    fewer = Batch(x[y[:, 3] == 0], y[y[:, 3] == 0, :3])
    more, less = (learner.predict(learner.adapt(support), query.x) for support in (Batch(x, y), fewer))
    torch.testing.assert_close(more[:, :3], less)


def test_unlabelled_rows_change_no_prototype() -> None:
    learner, (x, y) = Prototypical(nn.Identity()), task().support
    padded = Batch(torch.cat([x, 100 * torch.ones(3, 5)]), torch.cat([y, torch.zeros(3, 3)]))
    torch.testing.assert_close(learner.adapt(padded), learner.adapt(Batch(x, y)))


def test_a_class_without_an_example_has_its_prototype_at_the_origin() -> None:
    x, y = torch.tensor([[2.0, 2.0]]), one_hot([0], 2)
    assert Prototypical(nn.Identity()).adapt(Batch(x, y)).means.tolist() == [[2.0, 2.0], [0.0, 0.0]]


def test_it_has_the_parameters_of_its_encoder_and_no_other() -> None:
    net = Conv4(1, 4)
    learner = Prototypical(net)
    assert learner.encoder is net
    assert [name for name, _ in learner.named_parameters()] == [f"encoder.{name}" for name, _ in net.named_parameters()]


def test_the_memory_layout_of_the_encoder_changes_no_embedding() -> None:
    torch.manual_seed(1)
    plain = Conv4(3, 4).eval()
    learner = Prototypical(Conv4(3, 4)).eval()
    learner.encoder.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 20, 20)
    torch.testing.assert_close(learner.encode(x), plain(x))


def test_volumes_have_no_such_layout_and_are_embedded_too() -> None:
    learner = Prototypical(nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten()))
    assert learner.encode(torch.randn(2, 1, 3, 4, 5)).shape == (2, 2 * 1 * 2 * 3)


def test_distances_of_close_points_far_from_the_origin_keep_their_digits_in_float32() -> None:
    x, y = (1e3 + 1e-2 * torch.randn(n, 64) for n in (20, 5))
    exact = (x.double()[:, None] - y.double()).square().sum(-1)
    expanded = x.square().sum(1)[:, None] - 2 * x @ y.mT + y.square().sum(1)
    error, expanded_error = (((d - exact) / exact).abs().max().item() for d in (squared_euclidean(x, y), expanded))
    assert error < 1e-5
    assert expanded_error > 1, "the expanded form has no digit left here"


def test_distances_are_symmetric_and_zero_only_to_itself() -> None:
    x = torch.randn(6, 3)
    distances = squared_euclidean(x, x)
    assert torch.equal(distances, distances.mT)
    assert torch.equal(distances == 0, torch.eye(6).bool())
    assert squared_euclidean(torch.zeros(1, 4), torch.ones(1, 4)).item() == 4


def test_a_query_on_its_prototype_is_certain_where_the_others_are_far() -> None:
    learner = Prototypical(nn.Identity())
    state = Prototypes(torch.tensor([[0.0], [10.0]]), torch.ones(2))
    probability = learner.predict(state, torch.tensor([[0.0]])).softmax(-1)[0, 0].item()
    assert math.isclose(probability, 1.0, abs_tol=1e-6)
