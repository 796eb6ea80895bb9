import pickle
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.core import Batch, Episode
from kshot.learners.gradient import MAML
from kshot.learners.gradient.inner_loop import InnerLoop, Mode, Objective
from kshot.learners.gradient.maml import Differentiate
from kshot.learners.gradient.update_rules import Sizes, Slots, UpdateRule, adam, momentum, sgd
from kshot.losses import mean_squared_error
from kshot.weights import Weights

EXACT: list[Mode] = ["mixed", "reverse"]
ALL: list[Mode] = ["mixed", "reverse", "first_order"]


def objective(weights: Weights, given: Any) -> Tensor:
    x, (scale, y) = given
    return (((x @ weights["a"]).tanh() @ weights["b"] * scale - y) ** 2).mean()


def sgd_step(loss: Objective, weights: Weights, given: Any, lr: float, mode: Mode) -> Weights:
    return InnerLoop(mode=mode)(loss, weights, given, [dict.fromkeys(weights, torch.tensor(lr, dtype=torch.float64))])


def problem() -> tuple[Weights, tuple[Tensor, tuple[Tensor, Tensor]]]:
    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64).requires_grad_()

    return {"a": leaf(3, 4), "b": leaf(4, 2)}, (leaf(5, 3), (leaf(), leaf(5, 2)))


def by_autograd(weights: Weights, given: Any, lr: float) -> Weights:
    gradients = torch.autograd.grad(objective(weights, given), list(weights.values()), create_graph=True)
    return {name: weight - lr * g for (name, weight), g in zip(weights.items(), gradients, strict=True)}


def after_steps(step: Any, weights: Weights, given: Any, steps: int) -> Tensor:
    for _ in range(steps):
        weights = step(weights, given)
    return sum((w**3).sum() for w in weights.values()) + objective(weights, given)


@pytest.mark.parametrize("mode", ALL)
def test_a_step_goes_against_the_gradient(mode: Mode) -> None:
    weights, given = problem()
    stepped = sgd_step(objective, weights, given, 0.1, mode)
    expected = by_autograd(weights, given, 0.1)
    assert list(stepped) == ["a", "b"]
    for name, weight in stepped.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("mode", EXACT)
def test_derivatives_reach_weights_and_everything_given(mode: Mode, steps: int) -> None:
    weights, given = problem()
    x, (scale, y) = given
    leaves = [*weights.values(), x, scale, y]
    ours = after_steps(lambda w, g: sgd_step(objective, w, g, 0.1, mode), weights, given, steps)
    theirs = after_steps(lambda w, g: by_autograd(w, g, 0.1), weights, given, steps)
    for one, other in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_the_derivative_of_a_quadratic_step_is_the_one_on_paper() -> None:
    a = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    w = torch.tensor([1.0, -3.0], dtype=torch.float64, requires_grad=True)
    stepped = sgd_step(lambda weights, a: weights["w"] @ a @ weights["w"] / 2, {"w": w}, a, 0.1, "mixed")["w"]
    jacobian = torch.stack([torch.autograd.grad(value, w, retain_graph=True)[0] for value in stepped])
    torch.testing.assert_close(jacobian, torch.eye(2).double() - 0.1 * a)


def test_first_order_takes_the_step_for_a_constant() -> None:
    weights, given = problem()
    stepped = sgd_step(objective, weights, given, 0.1, "first_order")
    total = sum((3 * w).sum() for w in stepped.values())
    found = torch.autograd.grad(total, [*weights.values(), given[0]], allow_unused=True)
    assert found[2] is None
    assert all(gradient is not None and (gradient == 3).all() for gradient in found[:2])


def test_what_needs_no_gradient_gets_none() -> None:
    weights, (x, (scale, y)) = problem()
    given = x.detach(), (scale, y.detach())
    sum(w.sum() for w in sgd_step(objective, weights, given, 0.1, "mixed").values()).backward()
    assert scale.grad is not None
    assert given[0].grad is None


def test_weights_that_the_loss_ignores_stay_and_pass_gradients_on() -> None:
    w, unused = (torch.randn(3, requires_grad=True) for _ in range(2))
    stepped = sgd_step(lambda weights, _: weights["w"].square().sum(), {"w": w, "unused": unused}, (), 0.1, "mixed")
    assert torch.equal(stepped["unused"], unused)
    (2 * stepped["unused"]).sum().backward()
    assert torch.equal(unused.grad, torch.full((3,), 2.0))


def test_integers_may_be_given() -> None:
    table, tokens = torch.randn(5, 2, requires_grad=True), torch.tensor([0, 3, 3])

    def loss(weights: Weights, tokens: Tensor) -> Tensor:
        return weights["table"][tokens].pow(3).sum()

    ours, theirs = (
        torch.autograd.grad(sgd_step(loss, {"table": table}, tokens, 0.1, mode)["table"].square().sum(), table)[0]
        for mode in EXACT
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mode", EXACT)
def test_a_step_maps_over_tasks(mode: Mode) -> None:
    weights, (x, (scale, y)) = problem()
    xs = torch.stack([x, x + 1, 2 * x]).detach()

    def loss(x: Tensor) -> Tensor:
        stepped = sgd_step(objective, weights, (x, (scale, y)), 0.1, mode)
        return objective(stepped, (x, (scale, y)))

    leaves = [*weights.values(), scale, y]
    mapped = torch.autograd.grad(torch.func.vmap(loss)(xs).sum(), leaves)
    looped = torch.autograd.grad(sum(loss(x) for x in xs), leaves)
    for one, other in zip(mapped, looped, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_mixed_keeps_no_activations() -> None:
    """What one step saves for the way back: its weights and what was given, by name."""
    weights, given = problem()
    stepped = sgd_step(objective, weights, given, 0.1, "mixed")
    saved = stepped["a"].grad_fn.saved_tensors
    kept = {tensor.data_ptr() for tensor in saved if tensor.dim()}  # of the scalars two are step sizes
    assert kept == {leaf.data_ptr() for leaf in (*weights.values(), given[0], given[1][1])}


@pytest.mark.parametrize("mode", EXACT)
def test_attention_may_stand_in_the_loop(mode: Mode) -> None:
    q, x = torch.randn(8, dtype=torch.float64, requires_grad=True), torch.randn(1, 2, 5, 8, dtype=torch.float64)

    def attend(weights: Weights, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(weights["q"] * x, x, x).square().mean()

    def loss(q: Tensor) -> Tensor:
        return attend(sgd_step(attend, {"q": q}, x, 0.5, mode), x)

    assert torch.autograd.gradcheck(loss, (q,))


@pytest.mark.parametrize("mode", EXACT)
def test_a_block_without_gradients_is_a_constant(mode: Mode) -> None:
    def loss(cut: Any) -> Objective:
        def objective(weights: Weights, x: Tensor) -> Tensor:
            return ((x * weights["w"]) / cut(weights["w"])).sum().pow(3)

        return objective

    def without_gradients(w: Tensor) -> Tensor:
        with torch.no_grad():
            return w.norm()

    w, x = torch.randn(3, dtype=torch.float64, requires_grad=True), torch.randn(3, dtype=torch.float64)
    found, expected = (
        torch.autograd.grad(sgd_step(loss(cut), {"w": w}, x, 0.1, mode)["w"].square().sum(), w)[0]
        for cut in (without_gradients, lambda w: w.detach().norm())
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("differentiate", ["mixed", "implicit"])
def test_an_operation_without_a_forward_derivative_is_sent_to_reverse_mode(differentiate: Differentiate) -> None:
    class Square(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x**2

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            del output
            ctx.save_for_backward(inputs[0])

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return 2 * ctx.saved_tensors[0] * gradient

    class Squared(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return Square.apply(super().forward(x))

    batch = Batch(torch.randn(2, 4, 3), torch.randn(2, 4, 1))
    model = Squared(3, 1)
    MAML(model, 0.1, differentiate="reverse", loss=mean_squared_error).meta_loss(Episode(batch, batch)).backward()
    loss = MAML(model, 0.1, differentiate=differentiate, loss=mean_squared_error).meta_loss(Episode(batch, batch))
    with pytest.raises(NotImplementedError, match="take differentiate='reverse'"):
        loss.backward()


@pytest.mark.parametrize("make", [sgd, momentum, adam])
def test_a_rule_declared_linear_is_linear_in_the_gradients(make: Any) -> None:
    rule, weights = make(), {"w": torch.ones(3, dtype=torch.float64)}
    slots, sizes = rule.init(weights), {"w": torch.tensor(0.1)}

    def change(scale: float) -> Tensor:
        gradients = {"w": scale * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)}
        return rule.update(gradients, weights, slots, sizes)[0]["w"] - weights["w"]

    assert torch.allclose(change(2.0), 2 * change(1.0)) == rule.linear


@pytest.mark.parametrize(
    ("rule", "optimizer"),
    [
        (sgd(), lambda w: torch.optim.SGD(w, 0.1)),
        (momentum(0.8), lambda w: torch.optim.SGD(w, 0.1, momentum=0.8)),
        (adam(), lambda w: torch.optim.Adam(w, 0.1)),
    ],
)
def test_a_rule_takes_the_steps_of_its_optimizer(rule: Any, optimizer: Any) -> None:
    weights, given = problem()
    theirs = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    torch_optimizer = optimizer(list(theirs.values()))
    for _ in range(5):
        torch_optimizer.zero_grad()
        objective(theirs, given).backward()
        torch_optimizer.step()
    ours = InnerLoop(rule)(
        objective, weights, given, [dict.fromkeys(weights, torch.tensor(0.1, dtype=torch.float64))] * 5
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_checkpoints_keep_the_weights_of_few_steps() -> None:
    weights, given = problem()
    sizes = [dict.fromkeys(weights, torch.tensor(0.1))] * 6

    def kept(every: int | None) -> int:
        node, tensors = InnerLoop(checkpoint_every=every)(objective, weights, given, sizes)["a"].grad_fn, set()
        while node is not None and hasattr(node, "saved_tensors"):
            tensors |= {tensor.data_ptr() for tensor in node.saved_tensors if tensor.shape == (3, 4)}
            node = next((parent for parent, _ in node.next_functions if hasattr(parent, "saved_tensors")), None)
        return len(tensors)

    assert (kept(None), kept(2), kept(3), kept(6)) == (6, 3, 2, 1)


@pytest.mark.parametrize("mode", ALL)
def test_without_a_meta_gradient_no_step_outlives_the_next(mode: Mode) -> None:
    weights, given = problem()
    seen: list[weakref.ref[Tensor]] = []
    alive = []

    def update(gradients: Weights, weights: Weights, slots: Slots, sizes: Sizes) -> tuple[Weights, Slots]:
        alive.append(sum(one() is not None for one in seen))
        stepped, slots = sgd().update(gradients, weights, slots, sizes)
        seen.append(weakref.ref(stepped["a"]))
        return stepped, slots

    sizes = [dict.fromkeys(weights, torch.tensor(0.1, dtype=torch.float64))] * 6
    with torch.no_grad():
        InnerLoop(UpdateRule(sgd().init, update, linear=True), mode)(objective, weights, given, sizes)
    assert len(alive) == 6
    assert max(alive) <= 2


@pytest.mark.parametrize("rule", [sgd(), momentum(), adam()])
def test_a_learner_is_pickled_with_its_rule(rule: UpdateRule) -> None:
    learner = MAML(nn.Linear(3, 2), 0.1, 2, rule=rule)
    support = Batch(torch.randn(4, 3), torch.eye(2)[[0, 1, 0, 1]])
    torch.testing.assert_close(pickle.loads(pickle.dumps(learner)).adapt(support), learner.adapt(support))
