"""Models of Hugging Face with masks, and adapters, adapt as they are and exactly."""

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from kshot.batching import unstack
from kshot.core import Batch, Episode, one_hot
from kshot.learners.gradient import MAML
from kshot.learners.gradient.maml import Differentiate

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

# peft reads a property of transformers that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

STEPS, LR = 5, 0.1


class Classifier(nn.Module):
    """The mean over the tokens that the mask keeps, and a linear layer."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(16, 3)

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        tokens, mask = x
        hidden = self.body(input_ids=tokens, attention_mask=mask).last_hidden_state
        kept = mask.unsqueeze(-1).to(hidden.dtype)
        return self.head((hidden * kept).sum(1) / kept.sum(1))


def bert(attention: str = "sdpa") -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        attn_implementation=attention,
    )
    return transformers.BertModel(config, add_pooling_layer=False)


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
    return transformers.GPT2Model(config)


def lora() -> nn.Module:
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    return peft.get_peft_model(bert(), config)


def tasks() -> Episode:
    tokens = torch.randint(1, 50, (2, 6, 7))
    mask = (torch.arange(7) < torch.randint(3, 8, (2, 6, 1))).long()
    y = one_hot(torch.arange(6).remainder(3).expand(2, -1), 3).double()
    return Episode(Batch((tokens, mask), y), Batch((tokens.flip(1), mask.flip(1)), y.flip(1)))


def by_plain_autograd(learner: MAML, tasks: Episode) -> Tensor:
    losses = []
    for support, query in unstack(tasks):
        weights = {name: learner.model.get_parameter(name) for name in learner.adapted}
        for _ in range(STEPS):
            loss = learner.loss(functional_call(learner.model, weights, (support.x,)), support.y)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {name: w - LR * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
        losses.append(learner.loss(functional_call(learner.model, weights, (query.x,)), query.y))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("differentiate", ["mixed", "reverse"])
@pytest.mark.parametrize("make", [bert, lambda: bert("eager"), gpt2, lora], ids=["BERT", "BERT eager", "GPT-2", "LoRA"])
def test_a_model_adapts_exactly(make: Callable[[], nn.Module], differentiate: Differentiate) -> None:
    model = Classifier(make()).double().eval()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    learner, episode = MAML(model, LR, STEPS, differentiate, adapts=trained.__contains__), tasks()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(learner.meta_loss(episode), parameters)
    with sdpa_kernel(SDPBackend.MATH):  # the only one that plain autograd can differentiate twice
        expected = torch.autograd.grad(by_plain_autograd(learner, episode), parameters)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_only_adapters_and_head_adapt_with_lora() -> None:
    model = Classifier(lora())
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or name.startswith("head") for name in trained)
    state = MAML(model, LR, adapts=trained.__contains__).adapt(Batch(*unstack(tasks())[0].support))
    assert set(state) == trained
