"""A sequence read by compiled steps: a program for one step, however long the sequence is."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import vjp
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from kshot.batching import first_line
from kshot.modes import modes
from kshot.weights import one_thread, replaced

__all__ = ["Steps"]

logger = logging.getLogger("kshot")

_ACTIVE: ContextVar["Steps | None"] = ContextVar("active steps", default=None)
Key: TypeAlias = tuple[Any, ...]


class Steps:
    """The compiled steps of cells, one for each shape of inputs, which ``kshot.nets.cells.run`` uses where they are active.

    A step is traced: what does not depend on its inputs, state, parameters and buffers stays as it was the first time.
    Derivatives run each step anew, so that a sequence keeps the states between its steps and nothing of what happens inside
    one. They are first derivatives: asked for a graph of them (``create_graph=True``), they raise.
    """

    def __init__(self) -> None:
        self._programs: dict[Key, _Program | None] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let cells run by these steps meanwhile, in this thread."""
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)

    @staticmethod
    def run(cell: nn.Module, inputs: Tensor, state: Any) -> tuple[Tensor, Any] | None:
        """Return the outputs and the last state, or nothing where no steps are active or the cell cannot be compiled."""
        steps = _ACTIVE.get()
        if steps is None or not len(inputs):
            return None
        flat, spec = tree_flatten(state)
        with one_thread():  # another may be tracing
            weights = _weights(cell)
        try:
            outputs, *rest = _Sequence.apply(steps, cell, spec, inputs, *flat, *weights.values())  # type: ignore[no-untyped-call]
        except _NotCompiledError:
            return None
        return outputs, tree_unflatten(rest[: len(flat)], spec)

    def program(self, cell: nn.Module, x: Tensor, state: list[Tensor], spec: TreeSpec) -> "_Program":
        """Return the program for inputs like x, compiled when it is asked for first."""
        key = (cell, spec, *_described([x, *state]), x.device, modes(cell, x.device))
        if key not in self._programs:
            try:
                with one_thread():
                    self._programs[key] = _Program(cell, x, state, spec)
            except torch.OutOfMemoryError:
                raise
            except Exception as cause:  # whatever stops a compiler, the plain loop has the same numbers
                self._programs[key] = None
                told = "%s: a step cannot be compiled, so it runs uncompiled (same numbers): %s"
                logger.warning(told, type(cell).__name__, first_line(cause))
        program = self._programs[key]
        if program is None:
            raise _NotCompiledError
        return program


class _NotCompiledError(Exception):
    """A cell's step is not compiled."""


class _Program:
    """A step ``(x, state, weights) -> (output, *state)``, and its derivative, added to that of the weights so far."""

    def __init__(self, cell: nn.Module, x: Tensor, state: list[Tensor], spec: TreeSpec) -> None:
        own = _weights(cell)

        def step(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
            with replaced(cell, dict(zip(own, weights, strict=True))):
                output, after = cell(x, tree_unflatten(state, spec))
            leaves, found = tree_flatten(after)
            if found != spec or _described(leaves) != _described(state):
                raise RuntimeError("its state changes in structure, shape or type")
            # Copies, since a program must not return what it was given; and of one layout, for which programs are made.
            return [_copied(leaf) for leaf in (output, *leaves)]

        def derivative(
            x: Tensor, state: list[Tensor], weights: list[Tensor], above: list[Tensor], so_far: list[Tensor]
        ) -> list[Tensor]:
            to_x, to_state, to_weights = vjp(step, x, state, weights)[1](above)
            return [to_x, *map(_copied, to_state), *(a + b for a, b in zip(so_far, to_weights, strict=True))]

        with torch.no_grad():
            # Examples of their own: tensors that are given twice would be compiled as one.
            weights = [torch.zeros_like(tensor) for tensor in own.values()]
            example = (x.new_zeros(x.shape), [leaf.new_zeros(leaf.shape) for leaf in state], weights)
            above = [torch.zeros_like(result) for result in step(*example)]
            so_far = [torch.zeros_like(weight) for weight in weights]
            self.step = _compiled(step, *example)
            self.derivative = _compiled(derivative, *example, above, so_far)


def _compiled(function: Any, *example: Any) -> Any:
    traced = make_fx(function)(*example)
    if any(torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) for node in traced.graph.nodes):
        raise RuntimeError("it draws random numbers")  # and would draw others in the derivative
    if any(tensor._version for tensor in tree_leaves(example)):
        raise RuntimeError("it writes into its state or buffers")  # and would again in the derivative
    program = torch.compile(traced, fullgraph=True, dynamic=False)
    program(*example)  # compiles here, where a failure is caught
    return program


class _Sequence(torch.autograd.Function):
    """Inputs ``(*t, n, d)``, a state and weights to outputs ``(*t, n, o)``, the last state, and the states between."""

    @staticmethod
    def forward(steps: Steps, cell: nn.Module, spec: TreeSpec, inputs: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        state, weights = list(tensors[: spec.num_leaves]), _detached(tensors[spec.num_leaves :])
        step = steps.program(cell, inputs.select(-2, 0), state, spec).step
        state = [_copied(leaf) for leaf in state]  # none twice
        outputs, between = [], []
        for x in _by_step(inputs.detach()):
            output, *state = step(x, state, weights)
            outputs.append(output)
            between.append(state)
        return torch.stack(outputs, -2), *state, *(leaf for state in between[:-1] for leaf in state)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        steps, cell, spec, x, *tensors = inputs
        first, weights, between = tensors[: spec.num_leaves], tensors[spec.num_leaves :], output[1 + spec.num_leaves :]
        ctx.program = steps.program(cell, x.select(-2, 0), first, spec)
        ctx.leaves, ctx.weights = spec.num_leaves, len(weights)
        ctx.mark_non_differentiable(*between)
        ctx.save_for_backward(x, *weights, *first, *between)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *given: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        steps, cell, spec, *tensors = given
        own = 1 + spec.num_leaves  # what each task has of its own; weights are everybody's
        if any(dim is not None for dim in in_dims[3 + own :]):
            raise _NotCompiledError
        batched = [
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(tensors[:own], in_dims[3:], strict=False)
        ]
        results: tuple[Tensor, ...] = _Sequence.apply(steps, cell, spec, *batched, *tensors[own:])  # type: ignore[no-untyped-call]
        return results, (0,) * len(results)

    @staticmethod
    def backward(ctx: Any, to_outputs: Tensor, *above: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "compiled steps have first derivatives alone; for second ones run the cell without them."
            )
        inputs, *tensors = _detached(ctx.saved_tensors)
        weights, states = tensors[: ctx.weights], tensors[ctx.weights :]
        states[: ctx.leaves] = [_copied(leaf) for leaf in states[: ctx.leaves]]  # as in forward: they come from outside
        to_state, to_weights = [_copied(one) for one in above[: ctx.leaves]], [torch.zeros_like(one) for one in weights]
        to_inputs = []
        for i, (x, to_output) in reversed(list(enumerate(zip(_by_step(inputs), _by_step(to_outputs), strict=True)))):
            state = states[i * ctx.leaves : (i + 1) * ctx.leaves]
            to_x, *rest = ctx.program.derivative(x, state, weights, [to_output, *to_state], to_weights)
            to_state, to_weights = rest[: ctx.leaves], rest[ctx.leaves :]
            to_inputs.append(to_x)
        return None, None, None, torch.stack(to_inputs[::-1], -2), *to_state, *to_weights


def _weights(cell: nn.Module) -> dict[str, Tensor]:
    return dict((*cell.named_parameters(), *cell.named_buffers()))


def _described(tensors: list[Tensor]) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in tensors]


def _copied(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _by_step(sequence: Tensor) -> tuple[Tensor, ...]:
    """Split ``(*t, n, d)`` into n of ``(*t, d)``, of one layout whatever n is."""
    return sequence.movedim(-2, 0).contiguous().unbind()


def _detached(tensors: Any) -> list[Tensor]:
    return [tensor.detach() for tensor in tensors]
