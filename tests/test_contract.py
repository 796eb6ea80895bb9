"""Every learner keeps every promise, and every check catches a learner that breaks it."""

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian

from kshot.batching import unstack
from kshot.contract import CHECKS, Case, ContractError, check_learner, make_case
from kshot.core import Batch, Episode, Learner
from kshot.learners.ensemble import Ensemble
from kshot.learners.gradient import MAML, SVM, DeepKernel, MetaLSTM, ProtoMAML, Reptile, Ridge, inner_loop, kernels
from kshot.learners.gradient.update_rules import adam
from kshot.learners.memory import (
    SNAIL,
    InContext,
    MANNCell,
    MemoryNetwork,
    NeuralProcess,
    NTMCell,
    Recurrent,
    Transducer,
)
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
from kshot.learners.metric.siamese import contrastive, n_pair, triplet
from kshot.learners.transfer import Classifier, Contrastive, FineTune, LinearProbe, MultiTask
from kshot.losses import bits, mean_squared_error
from kshot.nets.cells import LSTM
from kshot.nets.context import FiLM, WithContext
from kshot.nets.conv import Conv4
from kshot.nets.features import CentreAndNormalise, CosineClassifier
from kshot.nets.mlp import MLP
from kshot.nets.multi_task import TaskConditioned, TaskHeads
from kshot.nets.norm import BatchStatisticsNorm, PerStepNorm, SupportStatisticsNorm, group_norm
from kshot.nets.resnet import ResNet12
from kshot.tasks.copying import Copy
from kshot.tasks.episodes import Episodes
from kshot.tasks.functions import GaussianProcesses
from kshot.tasks.labelled import LabelledData
from kshot.tasks.numbered import NumberedTasks
from kshot.tasks.sinusoid import Sinusoids
from kshot.tasks.source import TaskSource
from kshot.tasks.stories import VOCABULARY, Stories


def pictures() -> TaskSource:
    x = torch.rand(36, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return Episodes(LabelledData.from_arrays(x, torch.arange(36) % 4), ways=3, shots=2, queries=2)


def rows(unlabelled: int = 0) -> TaskSource:
    x = torch.randn(36, 6, generator=torch.Generator().manual_seed(0))
    data = LabelledData.from_arrays(x, torch.arange(36) % 4)
    return Episodes(data, ways=3, shots=2, queries=2, unlabelled=unlabelled)


def stories() -> TaskSource:
    return Stories("one_fact", sentences=5, questions=4)


def memory_network(**more: Any) -> MemoryNetwork:
    learner = MemoryNetwork(len(VOCABULARY), 4, **more)
    learner.at_progress(0.0)
    return learner


def embed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))


def maps() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=4), nn.Tanh())


def relation(norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), norm(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 1))


def conv(norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(Conv4(1, 4, "stride", "mean", norm), nn.Linear(4, 3))


def warmed(encoder: nn.Module) -> nn.Module:
    """Give running averages real values: with those of a new net, twelve layers let nothing through."""
    for _ in range(50):
        encoder(torch.rand(32, 1, 16, 16))
    return encoder


def batch_norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, track_running_stats=False)


def first_order_direction(learner: Learner, tasks: Episode) -> dict[str, Tensor]:
    """Return the query gradient at the adapted weights: what first-order MAML takes for a gradient."""
    assert isinstance(learner, MAML)
    total: dict[str, Tensor] = {}
    for task in unstack(tasks):
        adapted = {name: w.detach().requires_grad_() for name, w in learner.adapt(task.support).items()}
        loss = learner.loss(learner.predict(adapted, task.query.x), task.query.y)
        for name, gradient in zip(adapted, torch.autograd.grad(loss, list(adapted.values())), strict=True):
            total[f"model.{name}"] = total.get(f"model.{name}", torch.tensor(0.0)) + gradient / len(tasks.support.y)
    return total


def of_the_minimum(learner: Learner, tasks: Episode) -> dict[str, Tensor]:
    """Solve by the whole Hessian the system that implicit MAML solves by conjugate gradient, where the steps have led."""
    assert isinstance(learner, MAML)
    names, shapes = zip(*((name, p.shape) for name, p in learner.model.named_parameters()), strict=True)
    sizes = [shape.numel() for shape in shapes]

    def loss(flat: Tensor, batch: Batch) -> Tensor:
        parts = (part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True))
        return F.cross_entropy(functional_call(learner.model, dict(zip(names, parts, strict=True)), batch.x), batch.y)

    start, directions = torch.cat([p.detach().flatten() for p in learner.model.parameters()]), []
    for support, query in unstack(tasks):
        flat = start
        for _ in range(learner.steps):
            flat = flat - learner.lr * (grad(loss)(flat, support) + learner.proximity * (flat - start))
        system = torch.eye(len(flat)) + hessian(loss)(flat, support) / learner.proximity
        directions.append(torch.linalg.solve(system, grad(loss)(flat, query)))
    parts = torch.stack(directions).mean(0).split(sizes)
    return {f"model.{name}": part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}


def each_member(learner: Learner, tasks: Episode) -> dict[str, Tensor]:
    """Return what a second-order and a first-order member take for their gradients alone."""
    exact, inexact = learner.members
    own = torch.autograd.grad(exact.meta_loss(tasks), list(exact.parameters()))
    names = [f"members.0.{name}" for name, _ in exact.named_parameters()]
    first_order = {f"members.1.{name}": g for name, g in first_order_direction(inexact, tasks).items()}
    return {**dict(zip(names, own, strict=True)), **first_order}


def in_context(name: str) -> bool:
    return name.endswith("context")


def towards_the_end(learner: Learner, tasks: Episode) -> dict[str, Tensor]:
    """Return the mean over tasks of the start less the end of training, or of its last step, as Reptile states."""
    assert isinstance(learner, Reptile)
    start = dict(learner.named_parameters())
    total = {name: torch.zeros_like(value) for name, value in start.items()}
    for task in unstack(tasks):
        trained = copy.deepcopy(learner)
        before = start
        for _ in range(learner.steps):
            if learner.tail:
                before = {name: value.detach().clone() for name, value in trained.named_parameters()}
            outputs = trained.learner.model(torch.cat([task.support.x, task.query.x]))
            loss = learner.loss(outputs, torch.cat([task.support.y, task.query.y]))
            with torch.no_grad():
                plain_step(trained, torch.autograd.grad(loss, list(trained.learner.model.parameters())))
        for name, value in trained.named_parameters():
            total[name] += (before[name] - value).detach() / len(tasks.support.y)
    return total


def plain_step(learner: Reptile, gradients: Sequence[Tensor]) -> None:
    """Descend, by Adam with betas of 0 and 0.999 where the learner carries its moments."""
    carried = {kind: list(slot) for kind, slot in learner.carried.items()}
    for i, (weight, gradient) in enumerate(zip(learner.learner.model.parameters(), gradients, strict=True)):
        step = gradient
        if carried:
            carried["mean"][i].copy_(gradient)
            carried["mean_ones"][i].fill_(1)
            carried["square"][i].lerp_(gradient.square(), 0.001)
            carried["square_ones"][i].lerp_(torch.ones_like(carried["square_ones"][i]), 0.001)
            step = gradient / ((carried["square"][i] / carried["square_ones"][i]).sqrt() + 1e-8)
        weight -= learner.learner.lr * step


def after_many_tasks(learner: Reptile) -> Reptile:
    """Return a learner whose carried moments are what gradients of one leave behind."""
    for moment in learner.carried.parameters():
        nn.init.ones_(moment)
    return learner


def with_inner_gradients_held(learner: Learner, tasks: Episode) -> dict[str, Tensor]:
    """Return the gradient by plain autograd, but for the inner gradients, which are constants of the learned rule."""
    assert isinstance(learner, MetaLSTM)
    losses = []
    for task in unstack(tasks):
        weights = {name: weight.clone() for name, weight in learner.model.named_parameters()}
        slots = learner.rule.rule().init(weights)
        for _ in range(learner.steps):
            loss = learner.loss(functional_call(learner.model, weights, task.support.x), task.support.y)
            gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
            weights, slots = learner.rule.rule().update(
                gradients, weights, slots, dict(learner.rule.named_parameters())
            )
        losses.append(learner.loss(functional_call(learner.model, weights, task.query.x), task.query.y))
    torch.stack(losses).mean().backward()
    return {name: parameter.grad for name, parameter in learner.named_parameters() if parameter.grad is not None}


Row = tuple[Learner, TaskSource, Any]

LEARNERS: dict[str, Callable[[], Row]] = {
    "prototypical": lambda: (Prototypical(Conv4(1, 4)), pictures(), None),
    "prototypical, ResNet-12": lambda: (Prototypical(warmed(ResNet12(1, (2, 3, 4, 5)))), pictures(), None),
    "prototypical, cosine": lambda: (Prototypical(embed(), distance=distances.cosine), rows(), None),
    "prototypical, Euclidean": lambda: (Prototypical(embed(), distance=distances.euclidean), rows(), None),
    "prototypical, Manhattan": lambda: (Prototypical(embed(), distance=distances.manhattan), rows(), None),
    "prototypical, learned weights": lambda: (
        Prototypical(embed(), distance=distances.WeightedSquaredEuclidean(4)),
        rows(),
        None,
    ),
    "mahalanobis": lambda: (Mahalanobis(embed()), rows(), None),
    "soft k-means": lambda: (SoftKMeans(embed()), rows(), None),
    "soft k-means, unlabelled": lambda: (SoftKMeans(embed(), steps=2, distractors=True), rows(unlabelled=2), None),
    "soft k-means, transductive": lambda: (SoftKMeans(embed(), transductive=True), rows(), None),
    "matching": lambda: (Matching(embed()), rows(), None),
    "matching, L2, learned temperature": lambda: (
        Matching(embed(), distance=distances.squared_euclidean, temperature="learned"),
        rows(),
        None,
    ),
    "matching, full context": lambda: (Matching(embed(), context=FullContext(4)), rows(), None),
    "siamese": lambda: (Siamese(embed(), WeightedL1(4)), rows(), None),
    "siamese, contrastive": lambda: (Siamese(embed(), distances.euclidean, contrastive(1.0)), rows(), None),
    "siamese, triplet": lambda: (Siamese(embed(), distances.squared_euclidean, triplet(1.0)), rows(), None),
    "siamese, correspondence, n-pair": lambda: (Siamese(maps(), Correspondence(4), n_pair), pictures(), None),
    "matching, correspondence": lambda: (Matching(maps(), distance=Correspondence(4, reach=1)), pictures(), None),
    "relation": lambda: (Relation(maps(), relation(group_norm)), pictures(), None),
    "relation, transductive": lambda: (
        Relation(maps(), relation(BatchStatisticsNorm), transductive=True),
        pictures(),
        None,
    ),
    "open set": lambda: (OpenSet(Prototypical(embed())), rows(), None),
    "maml, GroupNorm, 1 step": lambda: (MAML(conv(group_norm), 0.4), pictures(), None),
    "maml, GroupNorm, 5 steps": lambda: (MAML(conv(group_norm), 0.4, 5), pictures(), None),
    "maml, batch statistics, 1 step": lambda: (MAML(conv(BatchStatisticsNorm), 0.4), pictures(), None),
    "maml, batch statistics, 5 steps": lambda: (MAML(conv(BatchStatisticsNorm), 0.1, 5), pictures(), None),
    "maml, support statistics": lambda: (MAML(conv(SupportStatisticsNorm), 0.4, 2), pictures(), None),
    "maml, stock batch norm": lambda: (MAML(conv(batch_norm), 0.4, 2), pictures(), None),
    "maml, per-step norm, multi-step loss": lambda: (
        MAML(conv(lambda channels: PerStepNorm(channels, 2)), 0.4, 2, multi_step=0.1, learn_lr="per_layer_per_step"),
        pictures(),
        None,
    ),
    "meta-sgd": lambda: (MAML(conv(group_norm), 0.4, 2, learn_lr="per_parameter"), pictures(), None),
    "imaml": lambda: (MAML(nn.Linear(6, 3), 0.3, 3, "implicit", cg_steps=21), rows(), of_the_minimum),
    "maml, reverse": lambda: (MAML(conv(group_norm), 0.4, 2, "reverse"), pictures(), None),
    "maml, some layers adapted": lambda: (
        MAML(MLP(6, 8, 3), 0.4, 2, adapts=lambda name: name.startswith("layers.2")),
        rows(),
        None,
    ),
    "fomaml": lambda: (MAML(conv(group_norm), 0.4, 2, "first_order"), pictures(), first_order_direction),
    "boil": lambda: (
        MAML(nn.Sequential(embed(), nn.Linear(4, 3)), 0.4, 2, adapts=lambda name: name.startswith("0.")),
        rows(),
        None,
    ),
    "cavia, sinusoid": lambda: (
        MAML(WithContext(MLP(3, 8, 1), 2), 0.5, 2, adapts=in_context, loss=mean_squared_error),
        Sinusoids(5, 4),
        None,
    ),
    "cavia, FiLM": lambda: (
        MAML(nn.Sequential(maps(), FiLM(4, 3), nn.Flatten(), nn.Linear(64, 3)), 0.5, 2, adapts=in_context),
        pictures(),
        None,
    ),
    "proto-maml": lambda: (ProtoMAML(embed(), 0.2, 2), rows(), None),
    "proto-maml, GroupNorm, reverse": lambda: (
        ProtoMAML(Conv4(1, 4, norm=group_norm), 0.1, 2, "reverse"),
        pictures(),
        None,
    ),
    "proto-maml, support statistics": lambda: (
        ProtoMAML(Conv4(1, 4, norm=SupportStatisticsNorm), 0.1, 1),
        pictures(),
        None,
    ),
    "proto-maml, batch statistics": lambda: (ProtoMAML(Conv4(1, 4, norm=BatchStatisticsNorm), 0.1), pictures(), None),
    "reptile": lambda: (Reptile(MAML(conv(group_norm), 0.1, 3, "first_order"), 2), pictures(), towards_the_end),
    "reptile, tail": lambda: (
        Reptile(MAML(MLP(6, 8, 3), 0.1, 3, "first_order"), 2, tail=True),
        rows(),
        towards_the_end,
    ),
    "reptile, batch statistics": lambda: (
        Reptile(MAML(conv(BatchStatisticsNorm), 0.1, 3, "first_order"), 2),
        pictures(),
        towards_the_end,
    ),
    "reptile, Adam": lambda: (
        after_many_tasks(Reptile(MAML(MLP(6, 8, 3), 0.01, 3, "first_order", rule=adam((0.0, 0.999))), 2)),
        rows(),
        towards_the_end,
    ),
    "meta-learner LSTM": lambda: (MetaLSTM(conv(group_norm), 2), pictures(), with_inner_gradients_held),
    "meta-learner LSTM, mixed, support statistics": lambda: (
        MetaLSTM(MLP(6, 5, 3, norm=SupportStatisticsNorm), 2, "mixed"),
        rows(),
        None,
    ),
    "meta-learner LSTM, sinusoid": lambda: (
        MetaLSTM(MLP(1, 8, 1), 3, "mixed", mean_squared_error),
        Sinusoids(5, 4),
        None,
    ),
    "ridge": lambda: (Ridge(Conv4(1, 4)), pictures(), None),
    "ridge, fewer features than examples": lambda: (Ridge(embed()), rows(), None),
    "ridge, sinusoid": lambda: (Ridge(MLP(1, 8, 3), mean_squared_error), Sinusoids(5, 4), None),
    "svm": lambda: (SVM(Conv4(1, 4)), pictures(), None),
    "svm, unlabelled examples beside": lambda: (SVM(embed(), c=1.0, ridge=0.1), rows(unlabelled=2), None),
    "deep kernel": lambda: (DeepKernel(MLP(1, 8, 3)), Sinusoids(5, 4), None),
    "deep kernel, linear": lambda: (DeepKernel(MLP(1, 8, 3), kernels.linear), Sinusoids(5, 4), None),
    "conditional neural process": lambda: (NeuralProcess(2, width=8), GaussianProcesses(None, 5, 4, inputs=2), None),
    "attentive neural process": lambda: (NeuralProcess(1, width=8, heads=2), GaussianProcesses(None, 5, 4), None),
    "ensemble, prototypical": lambda: (Ensemble([Prototypical(embed()), Prototypical(embed())]), rows(), None),
    "ensemble, maml, batch statistics": lambda: (
        Ensemble([MAML(MLP(6, 5, 3, norm=BatchStatisticsNorm), 0.4) for _ in range(2)]),
        rows(),
        None,
    ),
    "ensemble, one of first order": lambda: (
        Ensemble([MAML(MLP(6, 5, 3), 0.4), MAML(MLP(6, 5, 3), 0.4, 2, "first_order")]),
        rows(),
        each_member,
    ),
    "ensemble, neural process": lambda: (
        Ensemble([NeuralProcess(1, width=8), NeuralProcess(1, width=8)]),
        GaussianProcesses(None, 5, 4),
        None,
    ),
    "ensemble, maml, sinusoid": lambda: (
        Ensemble([MAML(MLP(1, 8, 1), 0.05, 2, loss=mean_squared_error) for _ in range(3)]),
        Sinusoids(5, 4),
        None,
    ),
    "snail": lambda: (SNAIL(embed(), 4, 3, 7, attention=((5, 4), (6, 5)), filters=3), rows(), None),
    "snail, longer than it spans": lambda: (
        SNAIL(embed(), 4, 3, 3, attention=((5, 4), (6, 5)), filters=3),
        rows(unlabelled=1),
        None,
    ),
    "snail, sinusoid": lambda: (
        SNAIL(MLP(1, 4, 3), 3, 1, 6, mean_squared_error, attention=((5, 4), (6, 5)), filters=3),
        Sinusoids(5, 4),
        None,
    ),
    "in context": lambda: (InContext(embed(), 4, width=8, blocks=2, heads=2, code=5), rows(), None),
    "in context, unlabelled examples beside": lambda: (
        InContext(embed(), 4, width=8, blocks=2, heads=2, code=5),
        rows(unlabelled=2),
        None,
    ),
    "transducer, LSTM": lambda: (Transducer(LSTM(3, 5, 2), 2, bits), Copy((3, 3), bits=2), None),
    "transducer, NTM, LSTM": lambda: (Transducer(NTMCell(3, 6, 5, 4), 2, bits), Copy((3, 3), bits=2), None),
    "transducer, NTM, feedforward": lambda: (
        Transducer(NTMCell(3, 6, 5, 4, 2, 2, "feedforward"), 2, bits),
        Copy((3, 3), bits=2),
        None,
    ),
    "transducer, NTM, learned start": lambda: (
        Transducer(NTMCell(3, 6, 5, 4, start="learned"), 2, bits),
        Copy((3, 3), bits=2),
        None,
    ),
    "simple shot": lambda: (Prototypical(nn.Sequential(embed(), CentreAndNormalise(torch.ones(4)))), rows(), None),
    "baseline++": lambda: (MAML(CosineClassifier(4, 3), 0.1, 3, encoder=embed()), rows(), None),
    "anil": lambda: (MAML(nn.Linear(4, 3), 0.4, 2, encoder=Conv4(1, 4)), pictures(), None),
    "recurrent, LSTM": lambda: (Recurrent(LSTM(4 + 3, 8, 2), embed(), 3), rows(), None),
    "recurrent, MANN": lambda: (Recurrent(MANNCell(4 + 3, 8, 12, 5, 2), embed(), 3), rows(), None),
    "recurrent, NTM": lambda: (Recurrent(NTMCell(4 + 3, 8, 12, 5, 2), embed(), 3), rows(), None),
    "recurrent, judged by queries": lambda: (Recurrent(LSTM(4 + 3, 8), embed(), 3, judged="query"), rows(), None),
    "recurrent, sinusoid": lambda: (
        Recurrent(LSTM(1 + 1, 8), nn.Identity(), 1, mean_squared_error),
        Sinusoids(5, 4),
        None,
    ),
    "memory network": lambda: (memory_network(), stories(), None),
    "memory network, layer-wise tying": lambda: (memory_network(tying="layer_wise"), stories(), None),
    "memory network, at its linear start": lambda: (memory_network(linear_start=0.5), stories(), None),
    "memory network, bags of words, one hop": lambda: (
        memory_network(hops=1, position_encoding=False),
        stories(),
        None,
    ),
    "linear probe": lambda: (LinearProbe(Conv4(1, 4), steps=15), pictures(), None),
    "linear probe, fewer features than examples": lambda: (LinearProbe(embed(), steps=8), rows(unlabelled=1), None),
    "linear probe, sinusoid": lambda: (LinearProbe(MLP(1, 8, 3), mean_squared_error), Sinusoids(5, 4), None),
    "fine-tuning, all": lambda: (FineTune(warmed(Conv4(1, 4)), 0.1, 3), pictures(), None),
    "fine-tuning, head": lambda: (FineTune(warmed(Conv4(1, 4)), 0.1, 3, "head"), pictures(), None),
    "fine-tuning, last block, warm-up, class means": lambda: (
        FineTune(embed(), 0.1, 3, 1, depth_decay=0.4, warm_up=2, head="mean", rule=adam()),
        rows(),
        None,
    ),
    "fine-tuning, support statistics": lambda: (
        FineTune(Conv4(1, 4, norm=SupportStatisticsNorm), 0.1, 2),
        pictures(),
        None,
    ),
    "fine-tuning, head, batch statistics": lambda: (
        FineTune(Conv4(1, 4, norm=BatchStatisticsNorm), 0.1, 2, "head"),
        pictures(),
        None,
    ),
    "fine-tuning, sinusoid": lambda: (FineTune(MLP(1, 8, 3), 0.02, 3, loss=mean_squared_error), Sinusoids(5, 4), None),
    "classifier": lambda: (Classifier(Prototypical(Conv4(1, 4)), CosineClassifier(4, 3)), pictures(), None),
    "contrastive": lambda: (Contrastive(Prototypical(embed()), MLP(4, 5, 3)), rows(), None),
    "multi-task, heads": lambda: (
        MultiTask(TaskHeads(embed(), 4, 3, 3)),
        NumberedTasks(rows(), 3),
        None,
    ),
    "multi-task, told the task": lambda: (
        MultiTask(TaskConditioned(MLP(1 + 2, 8, 1), 3, 2), mean_squared_error),
        NumberedTasks(Sinusoids(5, 4), 3),
        None,
    ),
    "multi-task, all tasks as one": lambda: (MultiTask(MLP(6, 8, 3)), rows(), None),
    "maml, sinusoid": lambda: (MAML(MLP(1, 8, 8, 1), 0.05, 2, loss=mean_squared_error), Sinusoids(5, 4), None),
}


@pytest.fixture(scope="module", params=LEARNERS)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    if request.param.startswith("svm"):
        pytest.importorskip("daqp")
    return make_case(*LEARNERS[request.param]())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_learner_keeps_its_promise(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


class Sound(Learner):
    """A correct learner on rows of 6 features: the classes below each break one promise of it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 4)

    def encode(self, x: Tensor) -> Tensor:
        return self.embed(x).tanh()

    def adapt(self, support: Batch) -> Any:
        return support.y.mT @ support.x / support.y.sum(0)[:, None]

    def predict(self, state: Any, x: Tensor) -> Tensor:
        return x @ state.mT


class KeepsText(Sound):
    def adapt(self, support: Batch) -> Any:
        return {"prototypes": super().adapt(support), "note": "adapted"}


class CountsTasks(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def adapt(self, support: Batch) -> Any:
        self.seen += 1
        return super().adapt(support)


class AddsNoise(Sound):
    def predict(self, state: Any, x: Tensor) -> Tensor:
        return super().predict(state, x) + 1e-3 * torch.randn(len(x), 1, dtype=x.dtype)


class WritesIntoInputs(Sound):
    def encode(self, x: Tensor) -> Tensor:
        return x

    def adapt(self, support: Batch) -> Any:
        support.y.mul_(0.5)
        return super().adapt(support)

    def predict(self, state: Any, x: Tensor) -> Tensor:
        return self.embed(x) @ self.embed(state).mT


class RemembersElsewhere(Sound):
    def adapt(self, support: Batch) -> Any:
        self.hidden = super().adapt(support)
        return torch.zeros(1, dtype=support.x.dtype)

    def predict(self, state: Any, x: Tensor) -> Tensor:
        return x @ self.hidden.mT


class MixesExamples(Sound):
    def encode(self, x: Tensor) -> Tensor:
        return self.embed(x - x.mean(0))


class ForgetsAParameter(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(2))


class DetachesPrototypes(Sound):
    def adapt(self, support: Batch) -> Any:
        return super().adapt(support).detach()


class ClaimsToBeInexact(Sound):
    exact_gradient = False


class DividesByAllRows(Sound):
    def adapt(self, support: Batch) -> Any:
        return support.y.mT @ support.x / len(support.y)


class LooksAtOtherQueries(Sound):
    def predict(self, state: Any, x: Tensor) -> Tensor:
        return super().predict(state, x - x.mean(0))


class WeighsTheFirstExample(Sound):
    def adapt(self, support: Batch) -> Any:
        return super().adapt(support) + 0.1 * support.x[0]


class ClaimsTransductive(Sound):
    transductive = True


class ClaimsOrder(Sound):
    order_sensitive = True


class ClaimsFixedWays(Sound):
    fixed_ways = True


class HidesFixedWays(Sound):
    def adapt(self, support: Batch) -> Any:
        return super().adapt(support) * torch.ones(3, 1, dtype=support.x.dtype)


class ClaimsUnlabelled(Sound):
    uses_unlabelled = True


class DividesByEachRow(Sound):
    def adapt(self, support: Batch) -> Any:
        return (support.y / support.y.sum(1, keepdim=True)).mT @ support.x


class PredictsNothing(Sound):
    def predict(self, state: Any, x: Tensor) -> Tensor:
        return super().predict(state, x) / 0.0


class EncodesWithoutGradients(Sound):
    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x)


class Streams(Sound):
    """Sums and counts of each class, which more examples join."""

    fixed_ways = True

    def init(self) -> Any:
        return torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)

    def update(self, state: Any, support: Batch) -> Any:
        return state[0] + support.y.mT @ support.x, state[1] + support.y.sum(0)[:, None]

    def adapt(self, support: Batch) -> Any:
        return self.update(Streams.init(self), support)

    def predict(self, state: Any, x: Tensor) -> Tensor:
        return super().predict(state[0] / state[1], x)


class StartsElsewhere(Streams):
    def init(self) -> Any:
        return torch.ones(3, 4, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)


class ForgetsWhatWas(Streams):
    def update(self, state: Any, support: Batch) -> Any:
        return super().update(Streams.init(self), support)


class AddsUpTheBatch(Sound):
    def task_losses(self, tasks: Any, chunk_size: Any = None) -> Tensor:
        losses = super().task_losses(tasks, chunk_size)
        return losses if isinstance(tasks, list) else losses.mean().expand(len(losses))


class KeepsNoDigits(Sound):
    """The state is a tensor whose numbers stand elsewhere."""

    def adapt(self, support: Batch) -> Any:
        return Elsewhere(super().adapt(support))

    def predict(self, state: Any, x: Tensor) -> Tensor:
        return super().predict(getattr(state, "numbers", state), x)


class Elsewhere(Tensor):
    """A tensor of zeros that carries other numbers."""

    numbers: Tensor

    def __new__(cls, numbers: Tensor) -> "Elsewhere":
        here: Elsewhere = torch.zeros_like(numbers).as_subclass(cls)
        here.numbers = numbers
        return here


class WastesRandomNumbers(Sound):
    def predict(self, state: Any, x: Tensor) -> Tensor:
        torch.rand(1)
        return super().predict(state, x)


BROKEN = {
    WastesRandomNumbers: ("check_no_global_randomness", "global random state"),
    StartsElsewhere: ("check_update", "updating what init returns"),
    ForgetsWhatWas: ("check_update", "adapting to half of the examples"),
    AddsUpTheBatch: ("check_batch_equals_loop", "Mix nothing across tasks"),
    KeepsNoDigits: ("check_state_survives_saving", "a saved state must predict the same"),
    DividesByEachRow: ("check_unlabelled_examples", "must be finite"),
    PredictsNothing: ("check_adapt_and_predict_are_pure", "must be finite"),
    EncodesWithoutGradients: ("check_gradient_reaches_every_parameter", "gets no gradient"),
    KeepsText: ("check_state_is_tensors", "pytree of tensors"),
    CountsTasks: ("check_adapt_and_predict_are_pure", "state_dict untouched"),
    AddsNoise: ("check_adapt_and_predict_are_pure", "the same predictions"),
    WritesIntoInputs: ("check_adapt_and_predict_are_pure", "write into their inputs"),
    RemembersElsewhere: ("check_state_is_all_that_is_remembered", "Keep nothing on the learner"),
    MixesExamples: ("check_encode_is_rowwise", "each example alone"),
    ForgetsAParameter: ("check_gradient_reaches_every_parameter", "unused gets no gradient"),
    DetachesPrototypes: ("check_meta_gradient", "finite differences"),
    ClaimsToBeInexact: ("check_meta_gradient", "the gradient is exact"),
    DividesByAllRows: ("check_unlabelled_examples", "uses_unlabelled=True"),
    ClaimsUnlabelled: ("check_unlabelled_examples", "uses_unlabelled=False"),
    LooksAtOtherQueries: ("check_transductive", "transductive=True"),
    ClaimsTransductive: ("check_transductive", "transductive=False"),
    WeighsTheFirstExample: ("check_order_sensitive", "order_sensitive=True"),
    ClaimsOrder: ("check_order_sensitive", "order_sensitive=False"),
    ClaimsFixedWays: ("check_fixed_ways", "fixed_ways=False"),
    HidesFixedWays: ("check_fixed_ways", "fixed_ways=True"),
}


class InsistsOnThreeWays(Sound):
    fixed_ways = True

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.error = error

    def adapt(self, support: Batch) -> Any:
        if support.y.shape[-1] != 3:
            raise self.error
        return super().adapt(support)


@pytest.mark.parametrize("error", [AssertionError, IndexError, RuntimeError])
def test_a_learner_refuses_other_ways_by_any_error(error: type[Exception]) -> None:
    check_learner(InsistsOnThreeWays(error), rows())


def test_tasks_that_are_no_stack_of_two_are_refused() -> None:
    tasks = rows().sample(np.arange(2))
    with pytest.raises(ValueError, match="two or more stacked ones; found 1"):
        check_learner(Sound(), rows().sample(np.arange(1)))
    with pytest.raises(ValueError, match="Stack tasks along a leading axis"):
        check_learner(Sound(), unstack(tasks)[0])
    with pytest.raises(ValueError, match=r"found a list\. Stack a list of Episodes"):
        check_learner(Sound(), unstack(tasks))


def test_tasks_of_several_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="found tasks of several sizes"):
        check_learner(Prototypical(nn.Identity()), Copy((2, 9), bits=2, same_length=1))


def test_the_sound_learner_is_sound() -> None:
    check_learner(Sound(), rows())


def test_a_learner_without_parameters_may_be_checked() -> None:
    check_learner(Prototypical(nn.Identity()), rows())


class CountsWords(Learner):
    """A correct learner of stories: word numbers as they are, and sentences that have no labels."""

    fixed_ways = True
    uses_unlabelled = True

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.randn(len(VOCABULARY), len(VOCABULARY)))

    def adapt(self, support: Batch) -> Any:
        return F.one_hot(support.x, len(VOCABULARY)).to(self.words.dtype).sum((0, 1))

    def predict(self, state: Any, x: Tensor) -> Tensor:
        return self.words[x].sum(1) * state


class ClaimsAnyWays(CountsWords):
    fixed_ways = False


class ClaimsLabels(CountsWords):
    uses_unlabelled = False


class MixesSentences(CountsWords):
    def encode(self, x: Tensor) -> Tensor:
        return x.flip(0)


BROKEN_ON_STORIES: dict[type[Learner], tuple[str, str]] = {
    MixesSentences: ("check_encode_is_rowwise", "each example alone"),
    ClaimsLabels: ("check_unlabelled_examples", "uses_unlabelled=True"),
    ClaimsAnyWays: ("check_fixed_ways", f"{len(VOCABULARY) - 1} ways fails; declare fixed_ways=True"),
}


def test_integers_and_a_support_set_without_labels_may_be_checked() -> None:
    check_learner(CountsWords(), stories())


@pytest.mark.parametrize("broken", [*BROKEN, *BROKEN_ON_STORIES], ids=lambda kind: kind.__name__)
def test_a_broken_learner_is_caught(broken: type[Learner]) -> None:
    name, message = {**BROKEN, **BROKEN_ON_STORIES}[broken]
    check = next(check for check in CHECKS if check.__name__ == name)
    with pytest.raises((ContractError, RuntimeError), match=message):
        check(make_case(broken(), rows() if broken in BROKEN else stories()))


def test_every_check_has_a_learner_that_fails_it() -> None:
    caught = {name for name, _ in (*BROKEN.values(), *BROKEN_ON_STORIES.values())}
    assert caught == {check.__name__ for check in CHECKS}


def test_a_learner_that_streams_may_be_checked() -> None:
    check_learner(Streams(), rows())


def test_an_inexact_method_must_state_its_direction() -> None:
    learner = MAML(conv(group_norm), 0.4, 2, "first_order")
    with pytest.raises(ContractError, match="needs direction="):
        check_learner(learner, pictures())


def test_a_wrong_direction_is_caught() -> None:
    def doubled(learner: Learner, tasks: Episode) -> dict[str, Tensor]:
        return {name: 2 * g for name, g in first_order_direction(learner, tasks).items()}

    with pytest.raises(ContractError, match="the direction that the method states"):
        check_learner(MAML(conv(group_norm), 0.4, 2, "first_order"), pictures(), doubled)


def test_it_catches_the_wrong_second_derivatives_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reverse mode through vmap with stock batch normalisation, without the plain operations that stand in for it."""
    monkeypatch.setattr(inner_loop, "PlainOperations", contextlib.nullcontext)
    with pytest.raises(ContractError, match="loop over tasks"):
        check_learner(MAML(conv(batch_norm), 0.4, 2, "reverse"), pictures())
