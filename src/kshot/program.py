"""The gradient of some tasks as one compiled program."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen
from torch.utils._pytree import tree_flatten, tree_unflatten

from kshot.batching import leaves, substituted
from kshot.core import Episode, Learner
from kshot.weights import replaced

__all__ = ["Program"]

# Convolutions stay in the layout they are written in: moving them to channels last, the compiler copies the activations of
# all tasks before and after each grouped convolution, which takes longer than it saves.
_OPTIONS: dict[str, Any] = {"layout_optimization": False}
# A program called by C++ lets go of Python's lock. Operations that C++ cannot call it leaves to Python, with a warning.
_SIDE_BY_SIDE = _OPTIONS | {"cpp_wrapper": True}


class Program:
    """The gradient of ``sum(task_loss) / total``, for encoded tasks of one shape.

    Autograd, vmap and the inner loop are traced away: what is compiled is plain tensor operations, forwards only. Anything
    that does not depend on tensors stays as it was when traced. Random numbers whose sizes stay the same are drawn before
    the program runs, one after another as without it, and given to it.

    Args:
        learner: whose ``task_loss`` it is.
        tasks: an example of the tasks to come.
        total: what the sum is divided by.
        side_by_side: others will run on other threads at the same time.

    Raises:
        RuntimeError: the step draws random numbers that depend on tensors, or cannot be traced or compiled.
    """

    def __init__(self, learner: Learner, tasks: Episode, total: int, side_by_side: bool = False) -> None:
        self._names, self._parameters = _used(learner, tasks)
        buffers = dict(learner.named_buffers())
        self._buffers = list(buffers.values())
        inputs, spec = tree_flatten(tasks)
        self._wanted = [i for i, leaf in enumerate(inputs) if leaf.requires_grad]

        def gradients(parameters: list[Tensor], told: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
            def loss(parameters: list[Tensor], chosen: list[Tensor]) -> Tensor:
                whole = substituted(inputs, self._wanted, chosen)
                named = dict(zip((*self._names, *buffers), (*parameters, *told), strict=True))
                with replaced(learner, named):
                    losses: Tensor = vmap(learner.task_loss, randomness="different")(tree_unflatten(whole, spec))
                return losses.sum() / total

            both, value = grad_and_value(loss, argnums=(0, 1))(parameters, [inputs[i] for i in self._wanted])
            return [value, *both[0], *both[1]]

        with torch.no_grad():
            example = _detached(self._parameters, self._buffers, inputs)
            traced = make_fx(gradients)(*example)
            self._draws = _drawn_before(traced)
            options = _SIDE_BY_SIDE if side_by_side else _OPTIONS
            self._run: Any = torch.compile(traced, fullgraph=True, dynamic=False, options=options)
            self.gradients(self.inputs(tasks))  # compiles here, where a failure is caught

    def inputs(self, tasks: Episode) -> list[Tensor]:
        """Return what the program works on: parameters, buffers, tasks, and random numbers, which are drawn here."""
        drawn = [draw() for draw in self._draws]
        return [*chain(*_detached(self._parameters, self._buffers, leaves(tasks))), *drawn]

    def gradients(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the loss, and its gradients for parameters and for encoded inputs; nothing else changes.

        On any thread.
        """
        with torch.no_grad():
            results: Sequence[Tensor] = self._run(*inputs)
        return results

    def add(self, tasks: Episode, results: Sequence[Tensor]) -> Tensor:
        """Add the gradients to ``.grad`` of parameters and of encoded inputs; return the loss."""
        loss, *found = results
        with torch.no_grad():
            to_parameters, to_inputs = found[: len(self._parameters)], found[len(self._parameters) :]
            for parameter, gradient in zip(self._parameters, to_parameters, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        if self._wanted:
            inputs = leaves(tasks)
            torch.autograd.backward([inputs[i] for i in self._wanted], to_inputs)
        return loss


def _detached(*lists: Sequence[Tensor]) -> list[list[Tensor]]:
    return [[tensor.detach() for tensor in tensors] for tensors in lists]


def _used(learner: Learner, tasks: Episode) -> tuple[list[str], list[nn.Parameter]]:
    """Return the parameters that an encoded task's loss depends on: those of an encoder, say, it does not."""
    named = {name: parameter for name, parameter in learner.named_parameters() if parameter.requires_grad}
    loss = learner.map_encoded(learner.task_loss, Episode(*tasks)).sum()
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    names = [name for name, gradient in zip(named, found, strict=True) if gradient is not None]
    return names, [named[name] for name in names]


def _drawn_before(traced: GraphModule) -> list[Callable[[], Tensor]]:
    """Let random numbers be inputs of a graph, behind the others, which become single tensors; return how they are drawn."""
    graph = traced.graph
    draws: list[Callable[[], Tensor]] = []
    graph.set_codegen(CodeGen())
    for node in list(graph.nodes):
        if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
            continue
        if node.all_input_nodes:
            raise RuntimeError(f"it draws random numbers that depend on tensors ({node.target})")
        draws.append(partial(node.target, *node.args, **node.kwargs))
        with graph.inserting_before(node):
            drawn = graph.placeholder(f"drawn_{len(draws)}")
        node.replace_all_uses_with(drawn)
        graph.erase_node(node)
    traced.recompile()
    return draws
