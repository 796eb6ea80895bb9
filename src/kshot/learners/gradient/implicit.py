"""Implicit differentiation: the meta-gradient of a minimum, whatever path led there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from kshot.autocast import Autocast, autocast_as_now
from kshot.learners.gradient.inner_loop import InnerLoop, Objective, forward_derivatives, plainly
from kshot.learners.gradient.random_state import random_state
from kshot.learners.gradient.update_rules import Sizes, UpdateRule
from kshot.weights import Weights

__all__ = ["proximal_minimum"]


def proximal_minimum(
    objective: Objective,
    weights: Weights,
    given: Any,
    sizes: Sequence[Sizes],
    rule: UpdateRule,
    proximity: float,
    cg_steps: int,
    damping: float = 0.0,
) -> Weights:
    r"""Descend to the minimum of the support loss near the start, and differentiate the minimum itself.

    .. math::
        w^* = \arg\min_w L(w, g) + \tfrac{\lambda}{2} \lVert w - w_0 \rVert^2, \qquad
        \frac{dw^*}{dw_0} = \left(I + \tfrac{1}{\lambda} \nabla^2 L(w^*, g)\right)^{-1}

    The steps keep nothing. The way back solves the linear system by conjugate gradient, with products of the Hessian and
    a vector; it is exact as far as the steps reach the minimum and conjugate gradient the solution. Nothing reaches the
    step sizes: the minimum does not depend on them.

    Aravind Rajeswaran, Chelsea Finn, Sham Kakade, Sergey Levine 2019, "Meta-learning with implicit gradients".

    Args:
        objective: ``L(weights, given)``, a scalar, evaluated again on the way back; it must draw nothing at random.
        weights: the start, by name.
        given: a pytree of every other tensor that L depends on and that the meta-gradient shall reach.
        sizes: the step sizes of each step, by name.
        rule: how a gradient becomes new weights.
        proximity: lambda; it should exceed minus the smallest eigenvalue of the Hessian.
        cg_steps: conjugate gradient iterations.
        damping: how many times the identity is added to the system: it is then solved for smaller eigenvalues of the
            Hessian too, and the derivative is no longer that of the minimum.

    Raises:
        ValueError: the objective draws random numbers.
    """
    tensors, spec = tree_flatten((weights, given))
    autocast = autocast_as_now(next(iter(weights.values())).device.type)
    problem = _Problem(plainly(objective), spec, len(weights), sizes, rule, proximity, cg_steps, damping, autocast)
    found = _Minimum.apply(problem, *tensors)  # type: ignore[no-untyped-call]
    return dict(zip(weights, found, strict=True))


@dataclass(frozen=True)
class _Problem:
    loss: Objective
    spec: TreeSpec
    n_weights: int
    sizes: Sequence[Sizes]
    rule: UpdateRule
    proximity: float
    cg_steps: int
    damping: float
    autocast: Autocast


class _Minimum(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(problem: _Problem, *tensors: Tensor) -> tuple[Tensor, ...]:
        start, given = tree_unflatten(list(tensors), problem.spec)

        def near_start(weights: Weights, given: Any) -> Tensor:
            away = sum((weight - start[name]).square().sum() for name, weight in weights.items())
            value: Tensor = problem.loss(weights, given) + problem.proximity / 2 * away
            return value

        before, loop = random_state(), InnerLoop(problem.rule, "first_order")
        found = tuple(loop(near_start, start, given, problem.sizes).values())
        if not all(map(torch.equal, tree_leaves(before), tree_leaves(random_state()))):
            raise ValueError(
                "implicit follows one support loss to its minimum, and what draws random numbers, such as dropout, makes it "
                "another at every step. Take it out of the net, or another differentiate."
            )
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.problem = inputs[0]
        ctx.save_for_backward(*output, *inputs[1 + inputs[0].n_weights :])  # the minimum, and what was given

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
        with ctx.problem.autocast(), forward_derivatives():
            return _Minimum._pulled_back(ctx, v)

    @staticmethod
    def _pulled_back(ctx: Any, v: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        problem, tensors, n = ctx.problem, ctx.saved_tensors, ctx.problem.n_weights

        def products(u: Sequence[Tensor], argnums: tuple[int, ...]) -> tuple[Tensor, ...]:
            """Return the derivatives of dL/d(argnums) along u of the weights."""

            def gradients(*weights: Tensor) -> tuple[Tensor, ...]:
                def loss(*tensors: Tensor) -> Tensor:
                    value: Tensor = problem.loss(*tree_unflatten(list(tensors), problem.spec))
                    return value

                return grad(loss, argnums=argnums)(*weights, *tensors[n:])  # type: ignore[no-any-return]

            return jvp(gradients, tensors[:n], tuple(u))[1]  # type: ignore[no-any-return]

        def system(u: Sequence[Tensor]) -> list[Tensor]:
            curved = products(u, tuple(range(n)))
            return [(1 + problem.damping) * one + h / problem.proximity for one, h in zip(u, curved, strict=True)]

        u = _conjugate_gradient(system, v, problem.cg_steps)
        received: list[Tensor | None] = [*u, *[None] * (len(tensors) - n)]
        if needed := tuple(i for i in range(n, len(tensors)) if ctx.needs_input_grad[1 + i]):
            for i, product in zip(needed, products(u, needed), strict=True):
                received[i] = -product / problem.proximity
        return None, *received


def _conjugate_gradient(
    system: Callable[[Sequence[Tensor]], list[Tensor]], v: Sequence[Tensor], iterations: int
) -> list[Tensor]:
    """Solve ``system(u) = v`` for a symmetric positive definite system, from zero."""
    u, residual, direction = [torch.zeros_like(one) for one in v], list(v), list(v)
    square = _dot(residual, residual)
    for _ in range(iterations):
        moved = system(direction)
        length = _ratio(square, _dot(direction, moved))
        u = [one + length * d for one, d in zip(u, direction, strict=True)]
        residual = [one - length * m for one, m in zip(residual, moved, strict=True)]
        before, square = square, _dot(residual, residual)
        turn = _ratio(square, before)
        direction = [r + turn * d for r, d in zip(residual, direction, strict=True)]
    return u


def _dot(x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(x, y, strict=True)]).sum()


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Divide; once the solution is reached, both are zero, and so is the ratio."""
    solved = below == 0
    return torch.where(solved, 0, above / torch.where(solved, 1, below))
