"""Gradient steps on the support set, through which the meta-gradient can pass exactly.

The meta-gradient differentiates through ``w' = w - lr * grad(w)``. Two ways lead there:

* ``reverse`` records the graph of every inner gradient and backpropagates through it, as textbooks do. Its memory grows
  with the activations of every step, and torch 2.13 computes it wrongly under vmap for fused normalisation layers
  (pytorch/functorch issue 534).
* ``mixed`` never differentiates through a reverse pass. It keeps the weights of each step alone, and on the way back
  multiplies the incoming vector v with the step's Hessian by a forward derivative of the gradient (Iurii Kemaev et al.
  2025, "Scalable meta-learning via mixed-mode differentiation"). It is exact, fused normalisation included, so it is the
  default. A layer without a forward derivative cannot take part: of torch's own that is ``nn.LSTM``, which needs
  ``reverse``.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.func import grad, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

__all__ = ["Differentiate", "Objective", "Weights", "sgd_step"]

Weights: TypeAlias = dict[str, Tensor]
Objective: TypeAlias = Callable[[Weights, Any], Tensor]  # (weights, given) -> the support loss, a scalar
Differentiate: TypeAlias = Literal["mixed", "reverse", "first_order"]


def sgd_step(objective: Objective, weights: Weights, given: Any, lr: float, differentiate: Differentiate) -> Weights:
    r"""Take one gradient step on the support loss.

    .. math:: w' = w - \alpha \nabla_w L(w, g)

    Args:
        objective: ``L(weights, given)``, a scalar. It must be deterministic: ``mixed`` evaluates it again.
        weights: what is adapted, by name.
        given: a pytree of every other tensor that L depends on and that the meta-gradient shall reach.
        lr: the step size.
        differentiate: how the meta-gradient passes through; ``first_order`` leaves the inner gradient out of it.

    >>> import torch
    >>> sgd_step(lambda w, x: (w["a"] * x).sum(), {"a": torch.ones(1)}, torch.tensor([3.0]), 0.1, "mixed")
    {'a': tensor([0.7000])}
    """
    match differentiate:
        case "mixed":
            tensors, spec = tree_flatten((weights, given))
            stepped = _MixedStep.apply(_Step(objective, spec, len(weights), lr), *tensors)  # type: ignore[no-untyped-call]
            return dict(zip(weights, stepped, strict=True))
        case "reverse":
            with sdpa_kernel(SDPBackend.MATH):
                gradient = grad(objective)(weights, given)
        case "first_order":
            with torch.no_grad():
                gradient = grad(objective)(weights, given)
    return {name: weight - lr * gradient[name] for name, weight in weights.items()}


class _Step(NamedTuple):
    """What a step needs beside tensors: an autograd function takes those one by one."""

    objective: Objective
    spec: TreeSpec
    n_weights: int
    lr: float

    def loss(self, *tensors: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivatives
            return self.objective(*tree_unflatten(tensors, self.spec))


class _MixedStep(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(step: _Step, *tensors: Tensor) -> tuple[Tensor, ...]:
        gradients = grad(step.loss, argnums=tuple(range(step.n_weights)))(*tensors)
        return tuple(weight - step.lr * gradient for weight, gradient in zip(tensors, gradients, strict=False))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del output  # the backward pass starts from the weights before the step
        ctx.step = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
        # For w' = w - lr dL/dw and an incoming vector v, weights receive v - lr (d2L/dw dw) v and any other tensor g
        # receives -lr (d2L/dg dw) v: both are the derivative of L's gradients in the direction lr v of the weights.
        step, tensors, n = ctx.step, ctx.saved_tensors, ctx.step.n_weights
        needed = tuple(i for i in range(len(tensors)) if ctx.needs_input_grad[i + 1])

        def gradients(*weights: Tensor) -> tuple[Tensor, ...]:
            return grad(step.loss, argnums=needed)(*weights, *tensors[n:])  # type: ignore[no-any-return]

        products = jvp(gradients, tensors[:n], tuple(step.lr * vector for vector in v))[1]
        received: list[Tensor | None] = [None] * len(tensors)
        for i, product in zip(needed, products, strict=True):
            received[i] = v[i] - product if i < n else -product
        return None, *received
