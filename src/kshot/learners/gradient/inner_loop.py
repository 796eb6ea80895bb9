"""Gradient steps on the support set, through which the meta-gradient can pass exactly.

The meta-gradient differentiates through steps such as ``w' = w - lr * grad(w)``. Two ways lead there:

* ``reverse`` records the graph of every inner gradient and backpropagates through it, as textbooks do. Its memory grows
  with the activations of every step.
* ``mixed`` never differentiates through a reverse pass. It keeps the weights of each step alone, and on the way back
  multiplies the incoming vector with the step's Hessian by a forward derivative of the gradient (Iurii Kemaev et al.
  2025, "Scalable meta-learning via mixed-mode differentiation"). It is the default.

Both are exact, for fused normalisation, attention and recurrent layers too: see ``kshot.plain_operations``.
``first_order`` leaves the inner gradient out of the meta-gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from kshot.batching import substituted
from kshot.learners.gradient.random_state import RandomState, random_state, replayed
from kshot.learners.gradient.update_rules import Sizes, Slots, UpdateRule, sgd
from kshot.plain_operations import PlainOperations
from kshot.weights import Weights

__all__ = ["InnerLoop", "Mode", "Objective", "plainly"]

Objective: TypeAlias = Callable[[Weights, Any], Tensor]  # (weights, given) -> the support loss, a scalar
Mode: TypeAlias = Literal["mixed", "reverse", "first_order"]
State: TypeAlias = tuple[Weights, Slots]


@dataclass(frozen=True)
class InnerLoop:
    r"""Gradient steps on the support loss, :math:`w_{s+1} = w_s - \alpha_s \nabla_w L(w_s, g)` or by another rule.

    Args:
        rule: how a gradient becomes new weights.
        mode: how the meta-gradient passes through a step.
        truncate: only the last so many steps are differentiated in full, those before in first order (Amirreza Shaban
            et al. 2019, "Truncated back-propagation for bilevel optimization"); all by default.
        checkpoint_every: ``mixed`` keeps the weights of every so many steps alone and takes those between again on the
            way back. With the square root of the number of steps, memory grows with that root, for one more gradient
            a step.

    >>> sizes = [{"a": torch.tensor(0.1)}] * 2
    >>> InnerLoop()(lambda w, x: (w["a"] * x).sum(), {"a": torch.ones(1)}, torch.tensor([3.0]), sizes)
    {'a': tensor([0.4000])}
    """

    rule: UpdateRule = field(default_factory=sgd)
    mode: Mode = "mixed"
    truncate: int | None = None
    checkpoint_every: int | None = None

    def __call__(self, objective: Objective, weights: Weights, given: Any, sizes: Sequence[Sizes]) -> Weights:
        """Take one step for each entry of ``sizes``.

        Args:
            objective: ``L(weights, given)``, a scalar. ``mixed`` evaluates it again on the way back, where it draws the
                same random numbers.
            weights: what is adapted, by name.
            given: a pytree of every other tensor that L depends on and that the meta-gradient shall reach.
            sizes: the step sizes of each step, by name; the meta-gradient reaches them too.
        """
        loss = plainly(objective)
        state: State = weights, self.rule.init(weights)
        first = 0 if self.truncate is None else max(0, len(sizes) - self.truncate)
        for size in sizes[:first]:
            state = self._recorded_step(loss, state, given, size, "first_order")
        if self.mode == "mixed":
            state = self._mixed_steps(loss, state, given, sizes[first:])
        else:
            for size in sizes[first:]:
                state = self._recorded_step(loss, state, given, size, self.mode)
        return state[0]

    def _recorded_step(self, loss: Objective, state: State, given: Any, size: Sizes, mode: Mode) -> State:
        with torch.set_grad_enabled(mode == "reverse" and torch.is_grad_enabled()):
            gradients = grad(loss)(state[0], given)
        return self.rule.update(gradients, *state, size)

    def _mixed_steps(self, loss: Objective, state: State, given: Any, sizes: Sequence[Sizes]) -> State:
        every = self.checkpoint_every or 1
        for start in range(0, len(sizes), every):
            part = list(sizes[start : start + every])
            tensors, spec = tree_flatten((*state, part, given))
            segment = _Segment(loss, self.rule, spec, len(state[0]), random_state())
            function = _MixedStep if len(part) == 1 else _MixedSegment
            outputs = function.apply(segment, *tensors)  # type: ignore[no-untyped-call]
            state = tree_unflatten(list(outputs), tree_flatten(state)[1])
        return state


def plainly(objective: Objective) -> Objective:
    """Return the objective, computed by operations that have all the derivatives an inner loop needs."""

    def loss(weights: Weights, given: Any) -> Tensor:
        with PlainOperations():
            return objective(weights, given)

    return loss


@dataclass(frozen=True)
class _Segment:  # no NamedTuple: an autograd function would take that apart for more tensors
    """What some steps need beside tensors, since an autograd function takes those one by one.

    ``spec`` is of (weights, slots, sizes of each step, given).
    """

    loss: Objective
    rule: UpdateRule
    spec: TreeSpec
    n_weights: int
    random_state: RandomState

    def trees(self, tensors: Sequence[Tensor]) -> tuple[Weights, Slots, list[Sizes], Any]:
        weights, slots, sizes, given = tree_unflatten(list(tensors), self.spec)
        return weights, slots, sizes, given


class _MixedStep(torch.autograd.Function):
    """One step."""

    generate_vmap_rule = True

    @staticmethod
    def forward(segment: _Segment, *tensors: Tensor) -> tuple[Tensor, ...]:
        weights, slots, (size,), given = segment.trees(tensors)
        return _flat(segment.rule.update(grad(segment.loss)(weights, given), weights, slots, size))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del output  # the backward pass starts from what was before the step
        ctx.segment = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
        # A step is update(gradients(weights, given), weights, slots, size). Pulling the incoming vectors v back through
        # the update, which is plain arithmetic, gives the vector u that arrives at the gradients. These are derivatives
        # of L, so pulling u back through them is the derivative of L's gradients along u: forward over reverse.
        segment, tensors = ctx.segment, ctx.saved_tensors
        weights, slots, (size,), given = segment.trees(tensors)
        flat_given, given_spec = tree_flatten(given)
        before_given = len(tensors) - len(flat_given)
        needed = [i for i in range(len(flat_given)) if ctx.needs_input_grad[1 + before_given + i]]

        def gradients(weights: Weights) -> tuple[Weights, list[Tensor]]:
            def loss(weights: Weights, chosen: list[Tensor]) -> Tensor:
                whole = substituted(flat_given, needed, chosen)
                value: Tensor = segment.loss(weights, tree_unflatten(whole, given_spec))
                return value

            return grad(loss, argnums=(0, 1))(weights, [flat_given[i] for i in needed])  # type: ignore[no-any-return]

        def pull(at: Weights) -> Any:
            return vjp(lambda *args: _flat(segment.rule.update(*args)), at, weights, slots, size)[1](v)

        with replayed(segment.random_state):
            # Where the update is linear in the gradients, u does not depend on them.
            at = weights if segment.rule.linear else gradients(weights)[0]
        pulled = pull(at)
        with replayed(segment.random_state):
            both: Any = jvp(gradients, (weights,), (pulled[0],))
        (at, _), (curved, products) = both
        _, direct, to_slots, to_size = pull(at) if segment.rule.linear else pulled
        to_given: list[Tensor | None] = [None] * len(flat_given)
        for i, product in zip(needed, products, strict=True):
            to_given[i] = product
        return None, *(direct[name] + curved[name] for name in weights), *_flat((to_slots, to_size)), *to_given


class _MixedSegment(torch.autograd.Function):
    """Several steps, of which only the start is kept: the way back takes them again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(segment: _Segment, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _steps(segment, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del output
        ctx.segment = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        needed = [i for i in range(len(tensors)) if ctx.needs_input_grad[1 + i]]

        def along_v(chosen: list[Tensor]) -> Tensor:
            outputs = _steps(ctx.segment, substituted(tensors, needed, chosen))
            return torch.stack([(one * other).sum() for one, other in zip(outputs, v, strict=True)]).sum()

        received: list[Tensor | None] = [None] * len(tensors)
        with replayed(ctx.segment.random_state):
            gradients = grad(along_v)([tensors[i] for i in needed])
        for i, gradient in zip(needed, gradients, strict=True):
            received[i] = gradient
        return None, *received


def _steps(segment: _Segment, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    weights, slots, sizes, given = segment.trees(tensors)
    return _flat(InnerLoop(segment.rule)._mixed_steps(segment.loss, (weights, slots), given, sizes))


def _flat(tree: Any) -> tuple[Tensor, ...]:
    return tuple(tree_flatten(tree)[0])
