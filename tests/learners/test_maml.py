import contextlib
import copy
import logging
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from kshot.batching import map_leaves, unstack
from kshot.core import Batch, Episode, Learner, one_hot
from kshot.evaluation import evaluate
from kshot.learners.gradient import MAML, SVM, DeepKernel, Ridge, inner_loop
from kshot.learners.gradient.maml import Differentiate, LearnedSizes
from kshot.learners.gradient.update_rules import adam, momentum, sgd
from kshot.learners.metric import Prototypical
from kshot.losses import mean_squared_error
from kshot.nets.conv import Conv4
from kshot.nets.mlp import MLP
from kshot.nets.norm import BatchStatisticsNorm, SupportStatisticsNorm, group_norm
from kshot.nets.resnet import ResNet12
from kshot.tasks.sinusoid import Sinusoids


def stacked(shape: tuple[int, ...], t: int = 3, ways: int = 3, shots: int = 2, queries: int = 2) -> Episode:
    def batch(k: int) -> Batch:
        labels = torch.arange(ways).repeat(k).expand(t, -1)
        offset = labels.reshape(t, -1, *[1] * len(shape)) / 2
        return Batch(torch.randn(t, ways * k, *shape).double() + offset, one_hot(labels, ways).double())

    return Episode(batch(shots), batch(queries))


def conv(norm: Callable[[int], nn.Module]) -> nn.Module:
    blocks = [nn.Sequential(nn.Conv2d(c, 4, 3, 2, padding=1), norm(4), nn.ReLU()) for c in (1, 4)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(16, 3)).double()


def batch_norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, track_running_stats=False)


def batch_norm_1d(channels: int) -> nn.Module:
    return nn.BatchNorm1d(channels, track_running_stats=False)


def instance_norm(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True)


def layer_norm_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)).double()


class Reader(nn.Module):
    """A transformer over six tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, 8)
        self.place = nn.Parameter(torch.randn(6, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x[..., None]) + self.place).mean(1))


class Tied(nn.Module):
    """One matrix used under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).tanh()).tanh())


class Twice(nn.Module):
    """One layer registered under one name or two, and used twice."""

    def __init__(self, names: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        if names == 2:
            self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        second = self.second if hasattr(self, "second") else self.first
        return self.head(second(self.first(x).tanh()).tanh())


class Recurrent(nn.Module):
    """A recurrent layer over six numbers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.LazyLinear(3)
        self(torch.zeros(1, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x[..., None])[0][:, -1])


class Celled(nn.Module):
    """A recurrent cell, taken along six numbers."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for column in x.unbind(1):
            state = self.cell(column[:, None], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Masked(nn.Module):
    """A stock encoder of two layers that must not look at the last two tokens, or ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(1, 8), nn.Linear(8, 3)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.arange(6).expand(x.shape) > 3
        ahead = torch.ones(6, 6, dtype=torch.bool).triu(1)
        return self.head(self.layers(self.embed(x[..., None]), ahead, hidden)[:, :4].mean(1))


class Tokens(nn.Module):
    """A reader of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x.long().clamp(-2, 2) + 2).mean(1).tanh())


def loss_of(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y.argmax(-1))


def adapted_by_hand(learner: MAML, support: Batch, create_graph: bool = True) -> dict[str, Tensor]:
    weights = dict(learner.model.named_parameters())
    for _ in range(learner.steps):
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivatives
            loss = loss_of(functional_call(learner.model, weights, (support.x,)), support.y)
        taken = [weights[name] for name in learner.adapted]
        gradients = torch.autograd.grad(loss, taken, create_graph=create_graph, materialize_grads=True)
        weights |= {n: w - learner.lr * g for n, w, g in zip(learner.adapted, taken, gradients, strict=True)}
    return weights


def loss_by_hand(learner: MAML, tasks: Episode) -> Tensor:
    """MAML as textbooks write it: a loop over tasks, and autograd through every step."""
    losses = []
    for (sx, sy), (qx, qy) in unstack(tasks):
        support = Batch(learner.encoder(sx), sy)
        weights = adapted_by_hand(learner, support)
        losses.append(loss_of(functional_call(learner.model, weights, (learner.encoder(qx),)), qy))
    return torch.stack(losses).mean()


Gradients = dict[str, Tensor]


def gradients_of(learner: MAML, loss: Tensor) -> Gradients:
    named = {name: parameter for name, parameter in learner.named_parameters() if parameter.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), materialize_grads=True), strict=True))


def by_hand(learner: MAML, tasks: Episode) -> Gradients:
    return gradients_of(learner, loss_by_hand(learner, tasks))


def by_kshot(learner: MAML, tasks: Episode, chunk_size: int | None = None) -> Gradients:
    learner.zero_grad()
    learner.meta_loss(tasks, chunk_size).backward()
    return {name: parameter.grad for name, parameter in learner.named_parameters() if parameter.grad is not None}


def error(found: Gradients, expected: Gradients) -> float:
    assert found.keys() == expected.keys()
    flat, truth = (torch.cat([side[name].double().flatten() for name in expected]) for side in (found, expected))
    return ((flat - truth).norm() / truth.norm()).item()


PICTURES, ROWS = (1, 8, 8), (6,)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "GroupNorm": (lambda: conv(group_norm), PICTURES),
    "BatchStatisticsNorm": (lambda: conv(BatchStatisticsNorm), PICTURES),
    "BatchNorm2d": (lambda: conv(batch_norm), PICTURES),
    "InstanceNorm2d": (lambda: conv(instance_norm), PICTURES),
    "LayerNorm": (layer_norm_mlp, ROWS),
    "attention": (lambda: Reader().double(), ROWS),
    "tied weights": (lambda: Tied().double(), ROWS),
    "tokens": (lambda: Tokens().double(), ROWS),
    "MLP": (lambda: MLP(6, 8, 3).double(), ROWS),
    "Conv4": (lambda: nn.Sequential(Conv4(1, 4, norm=batch_norm), nn.Linear(4, 3)).double(), (1, 16, 16)),
    "strided Conv4": (
        lambda: nn.Sequential(Conv4(1, 4, "stride", "mean", group_norm), nn.Linear(4, 3)).double(),
        PICTURES,
    ),
    "ResNet12": (
        lambda: nn.Sequential(ResNet12(1, (4, 4, 8, 8), norm=group_norm), nn.Linear(8, 3)).double(),
        (1, 16, 16),
    ),
    "BatchNorm1d": (lambda: nn.Sequential(nn.Linear(6, 8), batch_norm_1d(8), nn.Linear(8, 3)).double(), ROWS),
    "masked transformer": (lambda: Masked().double(), ROWS),
    "LSTM": (lambda: Recurrent(nn.LSTM(1, 4, 2, batch_first=True, bidirectional=True)).double(), ROWS),
    "GRU": (lambda: Recurrent(nn.GRU(1, 4, 2, bias=False, batch_first=True)).double(), ROWS),
    "RNN": (lambda: Recurrent(nn.RNN(1, 4, batch_first=True)).double(), ROWS),
    "LSTMCell": (lambda: Celled(nn.LSTMCell(1, 4)).double(), ROWS),
    "GRUCell": (lambda: Celled(nn.GRUCell(1, 4)).double(), ROWS),
    "RNNCell": (lambda: Celled(nn.RNNCell(1, 4, nonlinearity="relu")).double(), ROWS),
}


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("differentiate", ["mixed", "reverse"])
@pytest.mark.parametrize("name", MODELS)
def test_the_meta_gradient_is_that_of_plain_autograd(name: str, differentiate: Differentiate, steps: int) -> None:
    make, shape = MODELS[name]
    learner, tasks = MAML(make(), 0.3, steps, differentiate), stacked(shape)
    expected = by_hand(learner, tasks)
    torch.testing.assert_close(learner.meta_loss(tasks), loss_by_hand(learner, tasks), rtol=1e-10, atol=0)
    assert error(by_kshot(learner, tasks), expected) <= 1e-10


@pytest.mark.parametrize("name", MODELS)
def test_one_task_at_a_time_reverse_is_exact_for_every_layer(name: str) -> None:
    make, shape = MODELS[name]
    learner, tasks = MAML(make(), 0.3, 3, "reverse"), stacked(shape)
    found = gradients_of(learner, learner.meta_loss(unstack(tasks)))
    assert error(found, by_hand(learner, tasks)) <= 1e-10


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("name", ["BatchNorm2d", "InstanceNorm2d", "LayerNorm"])
def test_the_comparison_catches_the_wrong_gradient_of_torch(
    name: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without plain operations, reverse through vmap is wrong for fused normalisation."""
    make, shape = MODELS[name]
    learner, tasks = MAML(make(), 0.3, steps, "reverse"), stacked(shape)
    monkeypatch.setattr(inner_loop, "PlainOperations", contextlib.nullcontext)
    assert error(by_kshot(learner, tasks), by_hand(learner, tasks)) > 1e-3


@pytest.mark.parametrize("differentiate", ["mixed", "reverse"])
def test_a_layer_registered_twice_is_one_layer(differentiate: Differentiate) -> None:
    double, single = (MAML(Twice(names).double(), 0.3, 3, differentiate) for names in (2, 1))
    double.load_state_dict(
        single.state_dict() | {"model.second." + k: v for k, v in single.model.first.state_dict().items()}
    )
    tasks = stacked(ROWS)
    assert error(by_kshot(double, tasks), by_hand(single, tasks)) <= 1e-10
    assert all(isinstance(parameter, nn.Parameter) for parameter in double.model.first.parameters())


def by_hand_with_rule(learner: MAML, tasks: Episode, rule: str) -> Gradients:
    """The reference for other rules: plain autograd through a loop over steps, written out for each rule."""
    losses = []
    for support, query in unstack(tasks):
        start = dict(learner.model.named_parameters())
        weights, first, second = start, {}, {}
        for step in range(1, learner.steps + 1):
            loss = loss_of(functional_call(learner.model, weights, (support.x,)), support.y)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            stepped = {}
            for i, ((name, w), g) in enumerate(zip(weights.items(), gradients, strict=True)):
                size = learner.lr
                if learner.sizes is not None:
                    size = learner.sizes[i][min(step - 1, len(learner.sizes[i]) - 1)]
                match rule:
                    case "momentum":
                        first[name] = 0.9 * first.get(name, 0) + g
                        stepped[name] = w - size * first[name]
                    case "adam":
                        first[name] = 0.9 * first.get(name, 0) + 0.1 * g
                        second[name] = 0.999 * second.get(name, 0) + 0.001 * g * g
                        root = (second[name] / (1 - 0.999**step)).sqrt()
                        stepped[name] = w - size * first[name] / (1 - 0.9**step) / (root + 1e-8)
                    case "sgd":
                        stepped[name] = w - size * g
            weights = stepped
        losses.append(loss_of(functional_call(learner.model, weights, (query.x,)), query.y))
    return gradients_of(learner, torch.stack(losses).mean())


RULES = {"sgd": sgd, "momentum": momentum, "adam": adam}


@pytest.mark.parametrize("learn_lr", [None, "per_parameter", "per_layer_per_step"])
@pytest.mark.parametrize(("differentiate", "checkpoint_every"), [("mixed", None), ("mixed", 2), ("reverse", None)])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_and_learned_step_size_has_the_gradient_of_plain_autograd(
    rule: str, differentiate: Differentiate, checkpoint_every: int | None, learn_lr: LearnedSizes | None
) -> None:
    learner = MAML(
        nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)).double(),
        0.05,
        5,
        differentiate,
        rule=RULES[rule](),
        learn_lr=learn_lr,
        checkpoint_every=checkpoint_every,
    )
    tasks = stacked(ROWS)
    found = by_kshot(learner, tasks)
    assert error(found, by_hand_with_rule(learner, tasks, rule)) <= 1e-10
    assert (learn_lr is None) == (not any(name.startswith("sizes") for name in found))


def test_adam_has_a_gradient_where_the_inner_gradient_is_zero() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    with torch.no_grad():
        model[0].bias[:4] = -100.0  # four units that never fire
    learner = MAML(model, 0.05, 3, rule=adam())
    assert all(gradient.isfinite().all() for gradient in by_kshot(learner, stacked(ROWS)).values())


def test_learned_step_sizes_serve_more_steps_than_they_were_made_for() -> None:
    learner = MAML(layer_norm_mlp(), 0.1, 2, learn_lr="per_layer_per_step", test_steps=4).eval()
    for sizes in learner.sizes:
        nn.init.uniform_(sizes, 0.05, 0.5)  # none like another
    support, weights = unstack(stacked(ROWS))[0].support, dict(learner.model.named_parameters())
    for step in (0, 1, 1, 1):
        loss = loss_of(functional_call(learner.model, weights, (support.x,)), support.y)
        steps = zip(weights.items(), learner.sizes, torch.autograd.grad(loss, list(weights.values())), strict=True)
        weights = {name: weight - sizes[step] * gradient for (name, weight), sizes, gradient in steps}
    torch.testing.assert_close(learner.adapt(support), weights)


@pytest.mark.parametrize("truncate", [0, 2, 9])
def test_truncation_takes_the_steps_before_in_first_order(truncate: int) -> None:
    learner, tasks = MAML(conv(group_norm), 0.3, 4, truncate=truncate), stacked(PICTURES)
    losses = []
    for support, query in unstack(tasks):
        weights = dict(learner.model.named_parameters())
        for step in range(4):
            loss = loss_of(functional_call(learner.model, weights, (support.x,)), support.y)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            early = step < 4 - truncate
            weights = {
                n: w - 0.3 * (g.detach() if early else g) for (n, w), g in zip(weights.items(), gradients, strict=True)
            }
        losses.append(loss_of(functional_call(learner.model, weights, (query.x,)), query.y))
    assert error(by_kshot(learner, tasks), gradients_of(learner, torch.stack(losses).mean())) <= 1e-10


class Noisy(nn.Module):
    """Drops out by a function, which no layer tells of."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.3)


@pytest.mark.parametrize("dropout", [nn.Dropout(0.3), Noisy()], ids=["layer", "function"])
@pytest.mark.parametrize("checkpoint_every", [None, 2])
def test_dropout_is_the_same_on_the_way_back(checkpoint_every: int | None, dropout: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), dropout, nn.Linear(16, 3)).double()
    mixed, reverse = (
        MAML(model, 0.3, 5, mode, checkpoint_every=checkpoint_every).train() for mode in ("mixed", "reverse")
    )
    tasks, found = stacked(ROWS), []
    for learner in (mixed, reverse):
        torch.manual_seed(3)
        found.append(by_kshot(learner, tasks))
        after = torch.rand(1)
    torch.manual_seed(3)
    mixed.meta_loss(tasks)
    assert torch.equal(torch.rand(1), after), "the way back must not move the random state"
    assert error(*found) <= 1e-10
    torch.manual_seed(4)
    assert error(by_kshot(mixed, tasks), found[0]) > 1e-3, "the test needs masks that matter"


def test_implicit_is_the_gradient_of_the_minimum() -> None:
    """Against plain autograd through a descent that has arrived."""
    learner = MAML(nn.Linear(6, 3).double(), 0.3, 300, "implicit", proximity=0.5, cg_steps=21)
    tasks, losses = stacked(ROWS), []
    for support, query in unstack(tasks):
        start = dict(learner.model.named_parameters())
        weights = start
        for _ in range(300):
            loss = loss_of(functional_call(learner.model, weights, (support.x,)), support.y)
            loss = loss + 0.25 * sum((w - start[name]).square().sum() for name, w in weights.items())
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {n: w - 0.3 * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
        losses.append(loss_of(functional_call(learner.model, weights, (query.x,)), query.y))
    assert error(by_kshot(learner, tasks), gradients_of(learner, torch.stack(losses).mean())) <= 1e-10


def test_a_damped_implicit_gradient_is_that_of_a_stronger_pull_made_smaller() -> None:
    """At the same weights, those of the start: ((1 + 3) I + H / 0.5) u = v where (I + H / 2) 4 u = v."""
    tasks, net = stacked(ROWS), nn.Linear(6, 3).double()
    damped = by_kshot(MAML(net, 0.0, 1, "implicit", proximity=0.5, cg_steps=21, damping=3.0), tasks)
    pulled = by_kshot(MAML(net, 0.0, 1, "implicit", proximity=2.0, cg_steps=21), tasks)
    assert error({name: 4 * one for name, one in damped.items()}, pulled) <= 1e-10


class FirstRowsNorm(SupportStatisticsNorm):
    """Normalise all rows by the moments of the first ``rows`` of them."""

    rows = 0

    def forward(self, x: Tensor) -> Tensor:
        first = x[: self.rows]
        mean = first.mean((0, 2, 3), keepdim=True)
        variance = first.var((0, 2, 3), correction=0, keepdim=True)
        scaled = (x - mean) / (variance + self.eps).sqrt()
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("differentiate", ["mixed", "reverse"])
def test_the_meta_gradient_passes_through_support_statistics(differentiate: Differentiate, steps: int) -> None:
    learner, tasks = MAML(conv(SupportStatisticsNorm), 0.3, steps, differentiate), stacked(PICTURES)
    twin = MAML(conv(FirstRowsNorm), 0.3, steps)
    twin.load_state_dict(learner.state_dict())
    FirstRowsNorm.rows = n = tasks.support.y.shape[1]
    losses = []
    for support, query in unstack(tasks):
        weights = adapted_by_hand(twin, support)
        logits = functional_call(twin.model, weights, (torch.cat([support.x, query.x]),))
        losses.append(loss_of(logits[n:], query.y))
    expected = gradients_of(twin, torch.stack(losses).mean())
    assert error(by_kshot(learner, tasks), expected) <= 1e-10


@pytest.mark.parametrize("chunk_size", [1, 2, None])
@pytest.mark.parametrize("norm", [group_norm, BatchStatisticsNorm, SupportStatisticsNorm])
def test_chunks_of_any_size_give_the_same_gradient(norm: Callable[[int], nn.Module], chunk_size: int | None) -> None:
    learner, tasks = MAML(conv(norm), 0.3, 2), stacked(PICTURES)
    learner.meta_loss(unstack(tasks)).backward()
    listed = {name: parameter.grad.clone() for name, parameter in learner.named_parameters()}
    assert error(by_kshot(learner, tasks, chunk_size), listed) <= 1e-10


def test_the_default_mode_runs_in_vmap_rather_than_one_task_at_a_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kshot"):
        for make, shape in MODELS.values():
            learner = MAML(make(), 0.3, 2)
            learner.meta_loss(stacked(shape)).backward()
    assert not caplog.records


def test_tasks_of_any_sizes_come_as_a_list() -> None:
    learner = MAML(layer_norm_mlp(), 0.3, 3)
    tasks = [unstack(stacked(ROWS, 1, shots=shots, queries=3))[0] for shots in (1, 4)]
    ours = gradients_of(learner, learner.meta_loss(tasks))
    apart = [by_hand(learner, map_leaves(lambda leaf: leaf[None], task)) for task in tasks]
    assert error(ours, {name: (apart[0][name] + apart[1][name]) / 2 for name in ours}) <= 1e-10


@pytest.mark.parametrize("steps", [1, 3])
def test_first_order_is_the_query_gradient_at_the_adapted_weights(steps: int) -> None:
    learner, tasks = MAML(conv(group_norm), 0.3, steps, "first_order"), stacked(PICTURES)
    total: Gradients = {}
    for support, query in unstack(tasks):
        adapted = {name: w.detach().requires_grad_() for name, w in adapted_by_hand(learner, support, False).items()}
        loss = loss_of(functional_call(learner.model, adapted, (query.x,)), query.y)
        for name, gradient in zip(adapted, torch.autograd.grad(loss, list(adapted.values())), strict=True):
            total[f"model.{name}"] = total.get(f"model.{name}", 0) + gradient / 3
    assert error(by_kshot(learner, tasks), total) <= 1e-10
    assert error(total, by_hand(learner, tasks)) > 1e-2, "the test needs second derivatives that matter"


@pytest.mark.parametrize("differentiate", ["mixed", "reverse"])
@pytest.mark.parametrize("adapts", ["3.", "0.0.", "bias"])
def test_parameters_that_are_not_adapted_get_exact_gradients_too(adapts: str, differentiate: Differentiate) -> None:
    learner = MAML(conv(group_norm), 0.3, 3, differentiate, adapts=lambda name: adapts in name)
    tasks = stacked(PICTURES)
    assert error(by_kshot(learner, tasks), by_hand(learner, tasks)) <= 1e-10


def test_only_accepted_parameters_are_adapted() -> None:
    learner = MAML(conv(group_norm), 0.3, 2, adapts=lambda name: name.startswith("3."))
    assert set(learner.adapt(unstack(stacked(PICTURES))[0].support)) == {"3.weight", "3.bias"}


@pytest.mark.parametrize("differentiate", ["mixed", "reverse"])
def test_an_encoder_outside_the_inner_loop_gets_its_exact_gradient(differentiate: Differentiate) -> None:
    body, head = nn.Sequential(*list(conv(group_norm))[:3]), nn.Linear(16, 3).double()
    learner, tasks = MAML(head, 0.3, 3, differentiate, encoder=body), stacked(PICTURES)
    expected = by_hand(learner, tasks)
    assert min(expected[name].norm() for name in expected if "encoder.0.0.weight" in name) > 0
    assert error(by_kshot(learner, tasks), expected) <= 1e-10


def test_parameters_that_require_no_gradient_get_none() -> None:
    model = layer_norm_mlp()
    model[0].requires_grad_(False)
    learner, tasks = MAML(model, 0.3, 2), stacked(ROWS)
    found = by_kshot(learner, tasks)
    assert set(found) == {"model.1.weight", "model.1.bias", "model.3.weight", "model.3.bias"}
    model.requires_grad_(True)
    expected = by_hand(learner, tasks)
    assert error(found, {name: expected[name] for name in found}) <= 1e-10


def test_maml_adds_no_parameter_to_a_model() -> None:
    model, encoder = conv(group_norm), nn.Linear(2, 2)
    alone, with_encoder = MAML(model, 0.3), MAML(model, 0.3, encoder=encoder)
    names = [f"model.{name}" for name, _ in model.named_parameters()]
    assert [name for name, _ in alone.named_parameters()] == names
    assert {name for name, _ in with_encoder.named_parameters()} == {*names, "encoder.weight", "encoder.bias"}
    assert sum(p.numel() for p in alone.parameters()) == sum(p.numel() for p in model.parameters())
    assert list(alone.state_dict()) == names


def test_no_steps_is_plain_training_of_the_model() -> None:
    learner, tasks = MAML(conv(group_norm), 0.3, steps=0), stacked(PICTURES)
    x, y = (leaf.flatten(0, 1) for leaf in tasks.query)
    torch.testing.assert_close(learner.predictions(tasks).flatten(0, 1), learner.model(x))
    assert error(by_kshot(learner, tasks), gradients_of(learner, loss_of(learner.model(x), y))) <= 1e-10


def test_adapt_leaves_the_parameters_untouched() -> None:
    learner, support = MAML(conv(group_norm), 0.3, 2), unstack(stacked(PICTURES))[0].support
    before = copy.deepcopy(learner.state_dict())
    adapted = learner.adapt(support)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert all(parameter.grad is None for parameter in learner.parameters())
    assert not any(torch.equal(adapted[name], before[f"model.{name}"]) for name in ("3.weight", "3.bias"))


@pytest.mark.parametrize("differentiate", ["mixed", "reverse", "first_order"])
def test_adaptation_lowers_the_support_loss(differentiate: Differentiate) -> None:
    model, support = layer_norm_mlp(), unstack(stacked(ROWS))[0].support
    losses = []
    for steps in (0, 1, 5, 20):
        learner = MAML(model, 0.1, steps, differentiate)
        losses.append(learner.loss(learner.predict(learner.adapt(support), support.x), support.y).item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]


def test_all_modes_adapt_to_the_same_weights() -> None:
    model, support = conv(BatchStatisticsNorm), unstack(stacked(PICTURES))[0].support
    mixed, *others = (MAML(model, 0.3, 3, mode).adapt(support) for mode in ("mixed", "reverse", "first_order"))
    for other in others:
        torch.testing.assert_close(other, mixed, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("differentiate", ["mixed", "reverse", "first_order"])
@pytest.mark.parametrize("name", ["GroupNorm", "BatchStatisticsNorm", "attention"])
def test_predictions_need_no_gradient_mode(name: str, differentiate: Differentiate) -> None:
    make, shape = MODELS[name]
    learner, tasks = MAML(make(), 0.3, 3, differentiate).eval(), stacked(shape)
    with torch.no_grad():
        without = learner.predictions(tasks)
    assert not without.requires_grad
    torch.testing.assert_close(without, learner.predictions(tasks), rtol=1e-8, atol=1e-8)


def test_evaluation_sees_the_adapted_model() -> None:
    model, tasks = MLP(1, 20, 1), Sinusoids(10, length=20)
    before, after = (MAML(model, 0.02, steps, loss=mean_squared_error) for steps in (0, 10))
    assert evaluate(after, tasks).mean < evaluate(before, tasks).mean


def test_what_a_prediction_may_look_at_is_declared() -> None:
    assert MAML(conv(BatchStatisticsNorm), 0.3).transductive
    assert MAML(conv(batch_norm), 0.3).transductive
    assert not MAML(conv(SupportStatisticsNorm), 0.3).transductive
    assert not MAML(conv(group_norm), 0.3).transductive
    assert not MAML(conv(group_norm), 0.3, differentiate="first_order").exact_gradient


def test_layers_that_cannot_stand_in_an_inner_loop_are_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match=r"layer '1' \(BatchNorm2d\) writes running averages.*track_running_stats=False"
    ):
        MAML(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), 0.1)
    with pytest.raises(ValueError, match="InstanceNorm2d"):
        MAML(nn.InstanceNorm2d(4, track_running_stats=True), 0.1)
    MAML(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0), nn.MultiheadAttention(4, 2), nn.GRU(4, 4)), 0.1)
    MAML(nn.Linear(4, 2), 0.1, encoder=nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.3)))


@pytest.mark.parametrize("norm", [BatchStatisticsNorm, SupportStatisticsNorm, batch_norm])
@pytest.mark.parametrize(
    "learner", [lambda net: MAML(nn.Linear(3, 2), 0.1, encoder=net), Ridge, SVM, DeepKernel, Prototypical]
)
def test_an_encoder_that_would_mix_tasks_is_refused(
    learner: Callable[[nn.Module], Learner], norm: Callable[[int], nn.Module]
) -> None:
    with pytest.raises(ValueError, match=r"encoder's layer '0\.1' .* queries of many tasks"):
        learner(conv(norm))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps and test_steps must be at least 0"),
        (
            {"steps": 0, "multi_step": 0.5, "learn_lr": "per_parameter"},
            "at least 1 for multi_step and learn_lr; found 0",
        ),
        ({"steps": 0, "differentiate": "implicit"}, "at least 1 for implicit"),
        ({"truncate": -1}, "truncate must be at least 0"),
        ({"checkpoint_every": 0}, "checkpoint_every at least 1"),
        ({"multi_step": 10.0}, "shares of training"),
        ({"differentiate": "implicit", "proximity": 0.0}, "proximity must be above 0"),
        ({"differentiate": "implicit", "cg_steps": 0}, "cg_steps at least 1"),
        ({"differentiate": "implicit", "damping": -1.0}, "damping at least 0"),
        ({"differentiate": "implicit", "learn_lr": "per_parameter"}, "which learn_lr needs"),
    ],
    ids=lambda told: "-".join(told) if isinstance(told, dict) else "",
)
def test_numbers_out_of_range_and_options_apart_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MAML(nn.Linear(4, 2), 0.1, **options)


@pytest.mark.parametrize("drawing", [nn.Dropout(0.3), Noisy()], ids=["layer", "function"])
def test_what_draws_random_numbers_has_no_implicit_gradient(drawing: nn.Module) -> None:
    learner = MAML(nn.Sequential(drawing, nn.Linear(6, 3)).double(), 0.1, 3, "implicit")
    for tasks in (stacked(ROWS), unstack(stacked(ROWS))):
        with pytest.raises(ValueError, match="such as dropout, makes it another at every step"):
            learner.meta_loss(tasks)
    assert (
        MAML(nn.Sequential(nn.Dropout(0.0), nn.Linear(6, 3)).double(), 0.1, 3, "implicit").meta_loss(stacked(ROWS)) > 0
    )


def test_where_every_step_is_differentiated_the_gradient_is_exact() -> None:
    net = nn.Linear(4, 2)
    assert MAML(net, 0.1, 3, truncate=3).exact_gradient
    assert MAML(net, 0.1, 0, "first_order").exact_gradient
    assert not MAML(net, 0.1, 3, truncate=3, test_steps=5).exact_gradient
    assert not MAML(net, 0.1, 3, "first_order").exact_gradient


def test_an_inner_loop_that_adapts_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="adapts must accept at least one parameter of the model; it has weight, bias"):
        MAML(nn.Linear(2, 2), 0.1, adapts=lambda name: name == "wieght")
    with pytest.raises(ValueError, match="it has none"):
        MAML(nn.ReLU(), 0.1)


def test_of_a_filter_that_leaves_nothing_out_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    MAML(nn.Linear(2, 2), 0.1)
    MAML(nn.Linear(2, 2), 0.1, adapts=lambda name: name == "bias")
    assert not caplog.records
    MAML(nn.Linear(2, 2), 0.1, adapts=lambda name: "head" not in name)
    assert "leaves none of the model's parameters out, weight and so on: all adapt" in caplog.text


@pytest.mark.parametrize("differentiate", ["mixed", "reverse"])
@pytest.mark.parametrize("norm", [group_norm, BatchStatisticsNorm])
def test_in_float32_it_is_as_exact_as_plain_autograd(
    norm: Callable[[int], nn.Module], differentiate: Differentiate
) -> None:
    ours, plain = [], []
    for seed in range(20):
        torch.manual_seed(seed)
        exact, tasks = MAML(conv(norm), 0.1, 5, differentiate), stacked(PICTURES)
        single = copy.deepcopy(exact).float()
        exact.load_state_dict({name: value.double() for name, value in single.state_dict().items()})
        fewer = map_leaves(lambda leaf: leaf.float(), tasks)
        truth = by_hand(exact, map_leaves(lambda leaf: leaf.double(), fewer))
        ours.append(error(by_kshot(single, fewer), truth))
        plain.append(error(by_hand(single, fewer), truth))
    assert statistics.median(ours) <= 2 * statistics.median(plain)
    assert statistics.median(ours) < 1e-4


@pytest.mark.parametrize("differentiate", ["mixed", "implicit"])
def test_the_way_back_has_the_autocast_of_the_way_forth(differentiate: Differentiate) -> None:
    learner = MAML(nn.Linear(4, 3), 0.3, 2, differentiate, encoder=nn.Linear(6, 4))
    tasks = map_leaves(Tensor.float, stacked((6,)))

    def gradients(backwards: bool) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = learner.meta_loss(tasks)
        with torch.autocast("cpu", torch.bfloat16, enabled=backwards):
            return list(torch.autograd.grad(loss, list(learner.parameters())))

    torch.testing.assert_close(gradients(False), gradients(True), rtol=1e-5, atol=1e-6)
