"""Neural processes against their formulas, and what a state may be given: nothing, the same twice, more than ever before."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.core import Batch, Episode
from kshot.evaluation import evaluate
from kshot.learners.memory import NeuralProcess
from kshot.learners.memory.neural_process import Averaged, Kept
from kshot.meta_gradient import MetaGradient
from kshot.tasks.functions import GaussianProcesses
from kshot.tasks.variable_shots import VariableShots
from kshot.training import train

HEADS = [None, 2]


def learner_of(heads: int | None) -> NeuralProcess:
    learner = NeuralProcess(3, 2, 8, heads=heads).double()
    with torch.no_grad():  # away from a start of zeros
        for parameter in learner.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return learner


def points(n: int) -> Batch:
    return Batch(torch.randn(n, 3).double(), torch.randn(n, 2).double())


def encoded(learner: NeuralProcess, batch: Batch) -> Batch:
    return Batch(learner.encode(batch.x), batch.y)


def predicted(learner: NeuralProcess, support: Batch, x: Tensor) -> Tensor:
    return learner.predict(learner.adapt(encoded(learner, support)), learner.encode(x))


def decoded(learner: NeuralProcess, x: Tensor, r: Tensor) -> Tensor:
    mean, spread = learner.decoder(torch.cat([x, r], -1)).chunk(2, -1)
    return torch.cat([mean, (0.01 + 0.99 * F.softplus(spread)).log()], -1)


def test_a_conditional_process_decodes_the_mean_of_representations() -> None:
    learner, support, x = learner_of(None), points(5), points(4).x
    representations = [learner.encoder(torch.cat(pair)[None]) for pair in zip(*support, strict=True)]
    expected = decoded(learner, x, torch.cat(representations).mean(0).expand(4, -1))
    torch.testing.assert_close(predicted(learner, support, x), expected)


def test_an_attentive_process_attends_head_by_head() -> None:
    learner, support, x = learner_of(2), points(5), points(4).x
    memory = learner.memory
    keys = torch.cat([memory.no_key, memory.key(memory.embed(support.x))])
    values = torch.cat([memory.no_value, memory.value(learner.encoder(torch.cat(support, -1)))])
    queries = memory.query(memory.embed(x))
    read = [F.scaled_dot_product_attention(queries[:, i], keys[:, i], values[:, i]) for i in (slice(4), slice(4, 8))]
    expected = decoded(learner, x, memory.output(torch.cat(read, -1)))
    torch.testing.assert_close(predicted(learner, support, x), expected)


@pytest.mark.parametrize("heads", HEADS)
def test_one_example_at_a_time_is_all_at_once(heads: int | None) -> None:
    learner, support, x = learner_of(heads), points(7), points(4).x
    state = learner.init()
    for pair in zip(*support, strict=True):
        state = learner.update(state, encoded(learner, Batch(*(part[None] for part in pair))))
    torch.testing.assert_close(
        learner.predict(state, learner.encode(x)), predicted(learner, support, x), rtol=1e-12, atol=1e-12
    )


def test_what_a_state_holds() -> None:
    support = points(7)
    averaged, kept = (learner.adapt(encoded(learner, support)) for learner in map(learner_of, HEADS))
    assert isinstance(averaged, Averaged)
    assert averaged.read == 7
    assert averaged.total.shape == (8,)
    assert isinstance(kept, Kept)
    assert kept.keys.shape == kept.values.shape == (8, 8)


@pytest.mark.parametrize("heads", HEADS)
def test_without_an_example_it_predicts_and_learns(heads: int | None) -> None:
    learner, query = learner_of(heads), points(4)
    torch.testing.assert_close(
        predicted(learner, points(0), query.x), learner.predict(learner.init(), learner.encode(query.x))
    )
    empty = Episode(*(Batch(*(leaf[None] for leaf in batch)) for batch in (points(0), query)))
    learner.meta_loss(empty).backward()
    reached = {name for name, p in learner.named_parameters() if p.grad is not None and p.grad.any()}
    assert "decoder.layers.0.weight" in reached
    assert ("memory.no_value" in reached) == (heads is not None)
    assert all(p.grad is None or p.grad.isfinite().all() for p in learner.parameters())


def test_the_same_example_twice() -> None:
    """A mean of twice the same is the same; attention looks away from 'none of these' towards it."""
    support, x = points(1), points(4).x
    twice = Batch(support.x.repeat(2, 1), support.y.repeat(2, 1))
    mean, attentive = map(learner_of, HEADS)
    torch.testing.assert_close(predicted(mean, twice, x), predicted(mean, support, x))
    assert not torch.allclose(predicted(attentive, twice, x), predicted(attentive, support, x))
    more, other = points(3), Batch(torch.cat([support.x, support.x]), torch.cat([support.y, support.y]))
    for learner in (mean, attentive):
        beside = [Batch(*(torch.cat(p) for p in zip(part, more, strict=True))) for part in (support, other)]
        assert not torch.allclose(predicted(learner, beside[0], x), predicted(learner, beside[1], x))


@pytest.mark.parametrize("heads", HEADS)
def test_it_differentiates_twice(heads: int | None) -> None:
    learner, support, query = learner_of(heads), points(3), points(2)
    learner.requires_grad_(False)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return learner.loss(predicted(learner, Batch(x, y), query.x), query.y)

    inputs = tuple(part.requires_grad_() for part in support)
    assert torch.autograd.gradgradcheck(loss, inputs)


def test_a_deviation_is_never_below_the_least() -> None:
    learner = NeuralProcess(1, least_deviation=0.2)
    with torch.no_grad():
        learner.decoder.layers[-1].bias[1] = -1e4
    log_deviation = learner.predict(learner.init(), learner.encode(torch.zeros(1, 1)))[0, 1]
    assert log_deviation.exp().item() == pytest.approx(0.2)


def test_compiled_it_has_the_same_gradient() -> None:
    learner, tasks = NeuralProcess(1, width=8, heads=2), GaussianProcesses(shots=3, queries=4)
    batch = next(iter(tasks.batches(4)))
    gradients = []
    for compiled in (False, True):
        learner.zero_grad()
        gradient = MetaGradient(learner, compiled=compiled)
        gradient(batch)
        assert None not in gradient._programs.values(), "it ran uncompiled"
        gradients.append([p.grad.clone() for p in learner.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", [None, 4])
def test_more_points_tell_more_than_in_training_too_and_it_is_as_sure_as_it_may_be(heads: int | None) -> None:
    torch.manual_seed(0)
    learner = NeuralProcess(1, width=32, heads=heads)
    smooth = {"queries": 30, "length_scale": 1.0, "noise": 0.1, "length": 200}
    train(learner, VariableShots(GaussianProcesses(shots=10, **smooth), (0, 10)), steps=400)
    found = {n: evaluate(learner, GaussianProcesses(shots=n, seed=1, **smooth), 50).mean for n in (0, 2, 10, 40)}
    assert found[0] == pytest.approx(-1.42, abs=0.15)  # the prior: a deviation of one
    assert found[0] < found[2] < found[10]
    assert found[40] > found[2]
    batch = next(iter(GaussianProcesses(shots=5, seed=1, **smooth).batches(200)))
    with torch.no_grad():
        mean, log_deviation = learner.predictions(batch).chunk(2, -1)
    standardised = (batch.query.y - mean) / log_deviation.exp()
    assert 0.8 < standardised.square().mean().sqrt() < 1.25


@pytest.mark.parametrize(
    "wrong",
    [{"heads": 3}, {"heads": 0}, {"least_deviation": 0.0}, {"least_deviation": 1.0}, {"targets": 0}, {"width": 0}],
)
def test_what_does_not_fit_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"heads must divide|least_deviation must be|at least 1; found"):
        NeuralProcess(1, **{"width": 8, **wrong})


def test_other_columns_than_it_was_built_for_are_refused() -> None:
    learner = NeuralProcess(1, width=8, heads=2)
    with pytest.raises(ValueError, match=r"built for inputs=1; found x with 2 columns"):
        learner.encode(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"built for targets=1; found y with 2 columns"):
        learner.adapt(Batch(learner.encode(torch.zeros(3, 1)), torch.zeros(3, 2)))
