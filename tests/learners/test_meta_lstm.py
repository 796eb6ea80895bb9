"""The learned update rule against an LSTM of torch's own, and against the rule that it begins as."""

import logging
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from kshot.batching import map_leaves, unstack
from kshot.core import Batch, Episode, one_hot
from kshot.learners.gradient import MAML, MetaLSTM
from kshot.learners.gradient.inner_loop import Mode
from kshot.learners.gradient.learned_rule import LearnedRule, seen
from kshot.losses import mean_squared_error
from kshot.tasks.sinusoid import Sinusoids


def waves(t: int = 4, seed: int = 0) -> Episode:
    tasks = Sinusoids(10, 10, seed).sample(np.arange(t))
    return map_leaves(lambda leaf: leaf.double(), tasks)


def smooth() -> nn.Module:
    """A net whose gradients are never zero, where the logarithm in the reference has no derivative."""
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))


def spread(learner: MetaLSTM) -> MetaLSTM:
    """Move the rule away from its beginning, where hardly anything depends on what the LSTM sees."""
    with torch.no_grad():
        for parameter in learner.rule.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return learner


def by_plain_autograd(learner: MetaLSTM, tasks: Episode, held: bool) -> Tensor:
    """The rule once more, one tensor of weights after another, with the cell of torch."""
    rule, losses = learner.rule, []
    for support, query in unstack(tasks):
        weights, slots = dict(learner.model.named_parameters()), {}
        for _ in range(learner.steps):
            loss = learner.loss(functional_call(learner.model, weights, support.x), support.y)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=not held)
            for (name, w), g in zip(weights.items(), gradients, strict=True):
                w, g, zero = w.reshape(-1, 1), g.reshape(-1, 1), torch.zeros(w.numel(), 1).double()
                state, f, i = slots.get(name, (None, zero, zero))
                inputs = [[g.abs().log() / 10, g.sign()], [zero - 1, math.exp(10) * g]]
                x = torch.where(g.abs() >= math.exp(-10), *(torch.cat(pair, 1) for pair in inputs))
                state = rule.cell(x, state)
                f = rule.forget(torch.cat([state[0], w, f], 1)).sigmoid()
                i = rule.input(torch.cat([state[0], w, i], 1)).sigmoid()
                slots[name] = state, f, i
                weights = {**weights, name: (f * w - i * g).reshape(weights[name].shape)}
        losses.append(learner.loss(functional_call(learner.model, weights, query.x), query.y))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("mode", ["mixed", "reverse", "first_order"])
def test_the_meta_gradient_is_that_of_plain_autograd(mode: Mode, steps: int) -> None:
    learner, tasks = spread(MetaLSTM(smooth(), steps, mode, mean_squared_error)).double(), waves()
    loss, expected_loss = learner.meta_loss(tasks), by_plain_autograd(learner, tasks, held=mode == "first_order")
    torch.testing.assert_close(loss, expected_loss, rtol=1e-10, atol=0)
    parameters = list(learner.parameters())
    found, expected = (torch.autograd.grad(one, parameters) for one in (loss, expected_loss))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert all(gradient.norm() > 1e-4 for gradient in found[:-2] if steps > 1)


def test_gradients_held_fixed_are_another_meta_gradient() -> None:
    """Else the test above would not tell the modes apart."""
    learner, tasks = spread(MetaLSTM(smooth(), 4, loss=mean_squared_error)).double(), waves()
    both = [
        torch.autograd.grad(by_plain_autograd(learner, tasks, held), list(learner.parameters()))
        for held in (True, False)
    ]
    one, other = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in both)
    assert (one - other).norm() > 0.01 * other.norm()


def test_it_begins_as_gradient_descent_that_forgets_a_little() -> None:
    learned, weights = LearnedRule(lr=0.2), {"a": torch.randn(2, 3), "b": torch.randn(4)}
    gradients = {name: torch.randn_like(weight) for name, weight in weights.items()}
    rule = learned.rule()
    stepped, slots = rule.update(gradients, weights, rule.init(weights), dict(learned.named_parameters()))
    for name, weight in weights.items():
        expected = weight * torch.tensor(5.0).sigmoid() - 0.2 * gradients[name]
        torch.testing.assert_close(stepped[name], expected, rtol=0.05, atol=0.02)
    assert slots["hidden"]["all"].shape == (10, 20)


def test_sizes_and_signs_are_seen_of_the_large_and_the_small() -> None:
    small, large = math.exp(-11), math.exp(-9)
    expected = torch.tensor([[-0.9, 1.0], [-0.9, -1.0], [-1.0, math.exp(-1)], [-1.0, -math.exp(-1)], [-1.0, 0.0]])
    torch.testing.assert_close(seen(torch.tensor([large, -large, small, -small, 0.0])), expected)


def test_a_gradient_of_zero_leaves_all_derivatives_finite() -> None:
    g = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    seen(g).sum().backward()
    assert g.grad.item() == pytest.approx(math.exp(10))


def test_its_size_does_not_depend_on_the_model() -> None:
    counts = {sum(p.numel() for p in MetaLSTM(nn.Linear(d, 3)).rule.parameters()) for d in (2, 50)}
    assert counts == {1966}  # an LSTM of 20 units that sees two numbers, and two gates that see 22


@pytest.mark.parametrize("mode", ["mixed", "reverse", "first_order"])
def test_it_runs_in_vmap_rather_than_one_task_at_a_time(mode: Mode, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kshot"):
        MetaLSTM(smooth(), 2, mode, mean_squared_error).double().meta_loss(waves()).backward()
    assert not caplog.records


def halves(t: int, seed: int) -> Episode:
    """Two half-spaces to be told apart by features of very different sizes, which one step size does not suit."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(t, 40, 3, generator=generator)
    y = one_hot((x @ torch.randn(t, 3, 1, generator=generator) > 0).squeeze(2).long(), 2)
    x = x * torch.tensor([10.0, 1.0, 0.1])
    return Episode(Batch(x[:, :20], y[:, :20]), Batch(x[:, 20:], y[:, 20:]))


def test_the_rule_alone_learns_to_take_better_steps_than_any_step_size() -> None:
    model, unseen = nn.Linear(3, 2, bias=False).requires_grad_(False), halves(200, 1)
    nn.init.zeros_(model.weight)
    learner = MetaLSTM(model, 5, rule=LearnedRule(lr=0.1))
    optimizer = torch.optim.Adam(learner.rule.parameters(), 1e-2)
    for step in range(180):
        optimizer.zero_grad()
        learner.meta_loss(halves(16, 2 + step)).backward()
        optimizer.step()
    with torch.no_grad():
        learned = learner.meta_loss(unseen).item()
        fixed = [MAML(model, lr, 5).meta_loss(unseen).item() for lr in (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 1.0)]
    assert learned < 0.95 * min(fixed)
    assert not model.weight.any()


@pytest.mark.parametrize("lr", [0.0, 1.0])
def test_a_step_size_that_no_gate_reaches_is_refused(lr: float) -> None:
    with pytest.raises(ValueError, match=r"lr in \(0, 1\)"):
        LearnedRule(lr=lr)


def test_steps_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, for its rule to take; found 0"):
        MetaLSTM(nn.Linear(4, 2), 0)
