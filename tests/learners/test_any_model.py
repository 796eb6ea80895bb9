"""MAML takes a model as it is, whatever it is made of: it adds nothing, differentiates exactly, and learns."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from kshot.batching import map_leaves, unstack
from kshot.core import Batch, Episode, one_hot
from kshot.learners.gradient import MAML
from kshot.learners.gradient.maml import Differentiate
from kshot.losses import mean_squared_error
from kshot.nets.conv import Conv4
from kshot.nets.mlp import MLP
from kshot.nets.norm import group_norm
from kshot.tasks.episodes import Episodes
from kshot.tasks.glyphs import glyphs
from kshot.tasks.sinusoid import Sinusoids

# peft reads a property of transformers that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

LENGTH, TOKENS = 6, 9


class Recurrent(nn.Module):
    """An LSTM over a sequence of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(1, 16, batch_first=True), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x[..., None])[0][:, -1])


class Transformer(nn.Module):
    """One layer of attention over a sequence of numbers and their places."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(1, 16), nn.Parameter(torch.randn(LENGTH, 16))
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x[..., None]) + self.place).mean(1))


class Adapters(nn.Module):
    """A frozen BERT with LoRA adapters, and a head."""

    def __init__(self) -> None:
        super().__init__()
        os.environ["HF_HUB_OFFLINE"] = "1"
        transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
        config = transformers.BertConfig(
            vocab_size=TOKENS,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=0.3,  # as far apart as weights that have been trained
        )
        body = transformers.BertModel(config, add_pooling_layer=False)
        self.body = peft.get_peft_model(body, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"]))
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(input_ids=x).last_hidden_state.mean(1))


def waves(seed: int, t: int) -> Episode:
    return Sinusoids(10, 10, seed).sample(np.arange(t))


def characters(seed: int, t: int) -> Episode:
    return Episodes(glyphs("val"), ways=2, shots=1, queries=5, seed=seed).sample(np.arange(t))


def numbers(generator: torch.Generator, t: int) -> tuple[Tensor, Tensor]:
    """Sequences of numbers, and whether the sum of the first half is the larger."""
    x = torch.randn(t, 20, LENGTH, generator=generator)
    return x, x[..., : LENGTH // 2].sum(-1) > x[..., LENGTH // 2 :].sum(-1)


def texts(generator: torch.Generator, t: int) -> tuple[Tensor, Tensor]:
    """Sequences of tokens, and whether more of them are of the first half of the vocabulary."""
    x = torch.randint(1, TOKENS, (t, 20, LENGTH - 1), generator=generator)
    return x, (x < TOKENS // 2 + 1).sum(-1) > (LENGTH - 1) // 2


def named_anew(draw: Callable[[torch.Generator, int], tuple[Tensor, Tensor]], seed: int, t: int) -> Episode:
    """Two classes of sequences, which each task numbers as it likes: before it adapts nobody can tell which is which."""
    generator = torch.Generator().manual_seed(seed)
    x, first = draw(generator, t)
    y = one_hot((first ^ (torch.rand(t, 1, generator=generator) < 0.5)).long(), 2)
    return Episode(Batch(x[:, :10], y[:, :10]), Batch(x[:, 10:], y[:, 10:]))


@dataclass
class Row:
    """A learner, its tasks, the query loss that none gets below without adapting, and how long training takes."""

    learner: Callable[[Differentiate], MAML]
    tasks: Callable[[int, int], Episode]
    without_adapting: float
    steps: int


ROWS = {
    # The best single wave is the mean one, -1.62 cos x, and waves have a mean square of 4.2.
    "MLP": Row(lambda mode: MAML(MLP(1, 40, 40, 1), 0.01, 1, mode, loss=mean_squared_error), waves, 3.0, 120),
    "convolution": Row(
        lambda mode: MAML(nn.Sequential(Conv4(1, 8, "stride", "mean", group_norm), nn.Linear(8, 2)), 0.4, 2, mode),
        characters,
        math.log(2),
        50,
    ),
    "recurrent": Row(lambda mode: MAML(Recurrent(), 0.5, 2, mode), partial(named_anew, numbers), math.log(2), 50),
    "transformer": Row(lambda mode: MAML(Transformer(), 0.1, 2, mode), partial(named_anew, numbers), math.log(2), 80),
    "BERT with LoRA": Row(
        lambda mode: MAML(Adapters(), 1.0, 2, mode, adapts=lambda name: "lora_" in name),
        partial(named_anew, texts),
        math.log(2),
        100,
    ),
}


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


def trained(learner: MAML) -> list[nn.Parameter]:
    return [parameter for parameter in learner.parameters() if parameter.requires_grad]


def test_maml_has_the_parameters_of_the_model_and_no_other(row: Row) -> None:
    learner = row.learner("reverse")
    for _ in range(2):  # after training as before
        ours, theirs = list(learner.parameters()), list(learner.model.parameters())
        assert len(ours) == len(theirs) > 0
        assert all(one is other for one, other in zip(ours, theirs, strict=True))
        assert list(learner.state_dict()) == [f"model.{name}" for name in learner.model.state_dict()]
        learner.meta_loss(row.tasks(0, 2)).backward()
    state = learner.adapt(map_leaves(lambda leaf: leaf[0], row.tasks(0, 1)).support)
    assert list(state) == [name for name, _ in learner.model.named_parameters() if name in learner.adapted]


def by_plain_autograd(learner: MAML, tasks: Episode) -> Tensor:
    losses = []
    for support, query in unstack(tasks):
        weights = {name: learner.model.get_parameter(name) for name in learner.adapted}
        for _ in range(learner.steps):
            loss = learner.loss(functional_call(learner.model, weights, (support.x,)), support.y)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {name: w - learner.lr * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
        losses.append(learner.loss(functional_call(learner.model, weights, (query.x,)), query.y))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("mode", ["mixed", "reverse"])
def test_the_meta_gradient_is_that_of_plain_autograd(row: Row, mode: Differentiate) -> None:
    learner = row.learner(mode).double()
    with torch.no_grad():
        for parameter in trained(learner):  # adapters begin as zeros, where half of their derivatives vanish
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    tasks = map_leaves(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, row.tasks(0, 3))
    found = torch.autograd.grad(learner.meta_loss(tasks), trained(learner))
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivatives
        expected = torch.autograd.grad(by_plain_autograd(learner, tasks), trained(learner))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_training_lowers_the_loss_on_unseen_tasks_further_than_any_fixed_prediction(row: Row) -> None:
    learner, unseen = row.learner("reverse"), row.tasks(1, 100)
    optimizer = torch.optim.Adam(trained(learner), 1e-2)

    def loss() -> float:
        with torch.no_grad():
            return learner.meta_loss(unseen).item()

    before = loss()
    for step in range(row.steps):
        optimizer.zero_grad()
        learner.meta_loss(row.tasks(2 + step, 8)).backward()
        optimizer.step()
    assert loss() < 0.9 * min(before, row.without_adapting)


def test_only_adapters_adapt_to_a_task() -> None:
    learner, task = ROWS["BERT with LoRA"].learner("reverse"), unstack(ROWS["BERT with LoRA"].tasks(0, 1))[0]
    assert set(learner.adapt(task.support)) == {n for n, _ in learner.model.named_parameters() if "lora_" in n}
    assert {n for n, p in learner.model.named_parameters() if p.requires_grad} == {
        *learner.adapted,
        "head.weight",
        "head.bias",
    }
