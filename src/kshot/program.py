"""The gradient of some tasks as one compiled program."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from kshot.batching import leaves, substituted
from kshot.core import Episode, Learner
from kshot.weights import replaced

__all__ = ["Program"]

# Convolutions stay in the layout they are written in: moving them to channels last, the compiler copies the activations of
# all tasks before and after each grouped convolution, which takes longer than it saves.
_OPTIONS: dict[str, Any] = {"layout_optimization": False}


class Program:
    """The gradient of ``sum(task_loss) / total``, for encoded tasks of one shape.

    Autograd, vmap and the inner loop are traced away: what is compiled is plain tensor operations, forwards only. Anything
    that does not depend on tensors stays as it was when traced.

    Args:
        learner: whose ``task_loss`` it is.
        tasks: an example of the tasks to come.
        total: what the sum is divided by.

    Raises:
        RuntimeError: the step draws random numbers, or cannot be traced or compiled.
    """

    def __init__(self, learner: Learner, tasks: Episode, total: int) -> None:
        self._names, self._parameters = _used(learner, tasks)
        buffers = dict(learner.named_buffers())
        self._buffers = list(buffers.values())
        inputs, spec = tree_flatten(tasks)
        self._wanted = [i for i, leaf in enumerate(inputs) if leaf.requires_grad]

        def gradients(
            parameters: list[Tensor], told: list[Tensor], inputs: list[Tensor]
        ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
            def loss(parameters: list[Tensor], chosen: list[Tensor]) -> Tensor:
                whole = substituted(inputs, self._wanted, chosen)
                named = dict(zip((*self._names, *buffers), (*parameters, *told), strict=True))
                with replaced(learner, named):
                    losses: Tensor = vmap(learner.task_loss)(tree_unflatten(whole, spec))
                return losses.sum() / total

            both, value = grad_and_value(loss, argnums=(0, 1))(parameters, [inputs[i] for i in self._wanted])
            return value, *both

        with torch.no_grad():
            example = _detached(self._parameters, self._buffers, inputs)
            traced = make_fx(gradients)(*example)
            _refuse_random(traced)
            self._run: Any = torch.compile(traced, fullgraph=True, dynamic=False, options=_OPTIONS)
            self._run(*example)  # compiles here, where a failure is caught

    def __call__(self, tasks: Episode) -> Tensor:
        """Add the gradient to ``.grad`` of parameters and of encoded inputs; return the loss."""
        inputs = leaves(tasks)
        with torch.no_grad():
            loss, to_parameters, to_inputs = self._run(*_detached(self._parameters, self._buffers, inputs))
            for parameter, gradient in zip(self._parameters, to_parameters, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        if self._wanted:
            torch.autograd.backward([inputs[i] for i in self._wanted], to_inputs)
        return loss  # type: ignore[no-any-return]


def _detached(*lists: Sequence[Tensor]) -> list[list[Tensor]]:
    return [[tensor.detach() for tensor in tensors] for tensors in lists]


def _used(learner: Learner, tasks: Episode) -> tuple[list[str], list[nn.Parameter]]:
    """Return the parameters that an encoded task's loss depends on: those of an encoder, say, it does not."""
    named = {name: parameter for name, parameter in learner.named_parameters() if parameter.requires_grad}
    loss = learner.map_encoded(learner.task_loss, Episode(*tasks)).sum()
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    names = [name for name, gradient in zip(named, found, strict=True) if gradient is not None]
    return names, [named[name] for name in names]


def _refuse_random(traced: GraphModule) -> None:
    for node in traced.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise RuntimeError(f"it draws random numbers ({node.target})")
