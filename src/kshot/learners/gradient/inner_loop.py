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

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from kshot.autocast import Autocast, autocast_as_now
from kshot.batching import first_line, substituted
from kshot.learners.gradient.random_state import RandomState, random_state, replayed
from kshot.learners.gradient.update_rules import Sizes, Slots, UpdateRule, sgd
from kshot.plain_operations import PlainOperations
from kshot.validation import check_choice
from kshot.weights import Weights

__all__ = ["InnerLoop", "Mode", "Objective", "forward_derivatives", "last", "plainly"]

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

    Raises:
        ValueError: there is no such mode, or a number is out of its range.
        TypeError: the rule is none, such as ``adam`` where ``adam()`` was meant.

    >>> sizes = [{"a": torch.tensor(0.1)}] * 2
    >>> InnerLoop()(lambda w, x: (w["a"] * x).sum(), {"a": torch.ones(1)}, torch.tensor([3.0]), sizes)
    {'a': tensor([0.4000])}
    """

    rule: UpdateRule = field(default_factory=sgd)
    mode: Mode = "mixed"
    truncate: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, Mode)
        if not isinstance(self.rule, UpdateRule):
            raise TypeError(f"rule must be an UpdateRule, such as adam() gives; found a {type(self.rule).__name__}.")
        truncate, every = self.truncate, self.checkpoint_every
        if (truncate is not None and truncate < 0) or (every is not None and every < 1):
            raise ValueError(
                f"truncate must be at least 0 steps and checkpoint_every at least 1; found {truncate} and {every}."
            )

    def __call__(self, objective: Objective, weights: Weights, given: Any, sizes: Sequence[Sizes]) -> Weights:
        """Take one step for each entry of ``sizes``.

        Args:
            objective: ``L(weights, given)``, a scalar. ``mixed`` evaluates it again on the way back, where it draws the
                same random numbers.
            weights: what is adapted, by name.
            given: a pytree of every other tensor that L depends on and that the meta-gradient shall reach.
            sizes: the step sizes of each step, by name; the meta-gradient reaches them too.
        """
        return last(self.path(objective, weights, [given] * len(sizes), sizes))

    def path(
        self, objective: Objective, weights: Weights, givens: Sequence[Any], sizes: Sequence[Sizes]
    ) -> Iterator[Weights]:
        """Yield the start and the weights after each step, or after every ``checkpoint_every`` of them.

        Args:
            objective: as above.
            weights: as above.
            givens: what is given at each step; steps between two checkpoints share what the first of them is given.
            sizes: as above.
        """
        loss = plainly(objective, twice=self.mode == "reverse")
        state: State = weights, self.rule.init(weights)
        yield weights
        first = 0 if self.truncate is None else max(0, len(sizes) - self.truncate)
        for given, size in zip(givens[:first], sizes[:first], strict=True):
            state = self._recorded_step(loss, state, given, size, "first_order")
            yield state[0]
        every = (self.checkpoint_every or 1) if self.mode == "mixed" else 1
        for start in range(first, len(sizes), every):
            given, part = givens[start], sizes[start : start + every]
            if self.mode == "mixed":
                state = self._mixed_steps(loss, state, given, part)
            else:
                state = self._recorded_step(loss, state, given, part[0], self.mode)
            yield state[0]

    def _recorded_step(self, loss: Objective, state: State, given: Any, size: Sizes, mode: Mode) -> State:
        with torch.set_grad_enabled(mode == "reverse" and torch.is_grad_enabled()):
            gradients = grad(loss)(state[0], given)
        return self.rule.update(gradients, *state, size)

    def _mixed_steps(self, loss: Objective, state: State, given: Any, sizes: Sequence[Sizes]) -> State:
        tensors, spec = tree_flatten((*state, list(sizes), given))
        autocast = autocast_as_now(next(iter(state[0].values())).device.type)
        segment = _Segment(loss, self.rule, spec, random_state(), autocast)
        outputs = _MixedSteps.apply(segment, *tensors)  # type: ignore[no-untyped-call]
        return tree_unflatten(list(outputs), tree_flatten(state)[1])  # type: ignore[no-any-return]


def last(path: Iterator[Weights]) -> Weights:
    """Return where a path ends; what lies before is let go as it is passed."""
    return deque(path, maxlen=1).pop()


def plainly(objective: Objective, twice: bool = False) -> Objective:
    """Return the objective, computed by operations that have all the derivatives an inner loop needs."""

    def loss(weights: Weights, given: Any) -> Tensor:
        with PlainOperations(twice):
            return objective(weights, given)

    return loss


@contextmanager
def forward_derivatives() -> Iterator[None]:
    """Say what can be done where an operation of a model has no forward derivative, which this way back needs.

    Raises:
        NotImplementedError: there is such an operation; it is named.
    """
    try:
        yield
    except NotImplementedError as error:
        if re.search("forward (mode )?AD", str(error)) is None:
            raise
        told = "mixed and implicit differentiation need a forward derivative that an operation of the model lacks; take"
        raise NotImplementedError(f"{told} differentiate='reverse'. ({first_line(error)})") from error


@dataclass(frozen=True)
class _Segment:  # no NamedTuple: an autograd function would take that apart for more tensors
    """What some steps need beside tensors, since an autograd function takes those one by one.

    ``spec`` is of (weights, slots, sizes of each step, given).
    """

    loss: Objective
    rule: UpdateRule
    spec: TreeSpec
    random_state: RandomState
    autocast: Autocast

    def trees(self, tensors: Sequence[Tensor]) -> tuple[State, list[Sizes], Any]:
        weights, slots, sizes, given = tree_unflatten(list(tensors), self.spec)
        return (weights, slots), sizes, given

    def step(self, state: State, given: Any, size: Sizes) -> State:
        return self.rule.update(grad(self.loss)(state[0], given), *state, size)

    def pulled(
        self, v: State, state: State, given: Any, size: Sizes, needed: Sequence[int], random: RandomState
    ) -> tuple[State, Sizes, list[Tensor]]:
        """Pull the vectors v, which arrive at what a step returned, back to state, size and needed leaves of given."""
        # A step is update(gradients(weights, given), weights, slots, size). Pulling v back through the update, which is
        # plain arithmetic, gives the vector u that arrives at the gradients. These are derivatives of L, so pulling u
        # back through them is the derivative of L's gradients along u: forward over reverse.
        flat_given, given_spec = tree_flatten(given)

        def gradients(weights: Weights) -> tuple[Weights, list[Tensor]]:
            def loss(weights: Weights, chosen: list[Tensor]) -> Tensor:
                whole = substituted(flat_given, needed, chosen)
                return self.loss(weights, tree_unflatten(whole, given_spec))

            return grad(loss, argnums=(0, 1))(weights, [flat_given[i] for i in needed])  # type: ignore[no-any-return]

        def pull(at: Weights) -> Any:
            return vjp(self.rule.update, at, *state, size)[1](v)

        with replayed(random):
            # Where the update is linear in the gradients, u does not depend on them.
            at = state[0] if self.rule.linear else gradients(state[0])[0]
        pulled = pull(at)
        with replayed(random):
            both: Any = jvp(gradients, (state[0],), (pulled[0],))
        (at, _), (curved, products) = both
        _, direct, to_slots, to_size = pull(at) if self.rule.linear else pulled
        return ({name: direct[name] + curved[name] for name in direct}, to_slots), to_size, products


class _MixedSteps(torch.autograd.Function):
    """Some steps, of which only the start is kept: the way back takes all but the last of them again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(segment: _Segment, *tensors: Tensor) -> tuple[Tensor, ...]:
        state, sizes, given = segment.trees(tensors)
        for size in sizes:
            state = segment.step(state, given, size)
        return _flat(state)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del output
        ctx.segment = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
        with ctx.segment.autocast(), forward_derivatives():
            return _MixedSteps._pulled_back(ctx, v)

    @staticmethod
    def _pulled_back(ctx: Any, v: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        segment, tensors = ctx.segment, ctx.saved_tensors
        state, sizes, given = segment.trees(tensors)
        starts = [(state, segment.random_state)]
        with replayed(segment.random_state):
            for size in sizes[:-1]:
                state = segment.step(state, given, size)
                starts.append((state, random_state()))
        n_given = len(tree_flatten(given)[0])
        needed = [i for i, wanted in enumerate(ctx.needs_input_grad[-n_given:] if n_given else ()) if wanted]
        at_end: State = tree_unflatten(list(v), tree_flatten(state)[1])
        to_sizes: list[Sizes] = []
        totals: list[Tensor] = []
        for (start, random), size in zip(reversed(starts), reversed(sizes), strict=True):
            at_end, to_size, products = segment.pulled(at_end, start, given, size, needed, random)
            to_sizes.insert(0, to_size)
            totals = [total + product for total, product in zip(totals, products, strict=True)] if totals else products
        to_given: list[Tensor | None] = [None] * n_given
        for i, total in zip(needed, totals, strict=True):
            to_given[i] = total
        return None, *_flat((*at_end, to_sizes)), *to_given


def _flat(tree: Any) -> tuple[Tensor, ...]:
    return tuple(tree_flatten(tree)[0])
