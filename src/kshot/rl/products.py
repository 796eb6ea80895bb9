"""Products with a matrix that is known only by what it does to vectors: traced once, and what they share computed once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from kshot.rl.lean import make_lean

__all__ = ["Products"]


class Products:
    """Many products ``f(given, v)``, linear in v, for the same ``given``.

    A product by derivatives, such as ``jvp(grad(loss), (w,), (v,))``, spends much of its time on what does not depend on
    v: the activations of the forward pass, and the gradient itself. The function is traced to plain operations, which are
    cut in two: those that v does not reach run once for a ``given``, the others once for a product. Other than
    ``torch.func.linearize`` it is traced once for all data of the same shapes.

    Args:
        function: ``(given, v) -> (value, product)``, pytrees of tensors; the value does not depend on v. It draws no random
            numbers, and its control flow depends on no tensor.

    >>> from torch.func import grad, jvp
    >>> products = Products(lambda w, v: jvp(grad(lambda w: (w**3).sum()), (w,), (v,)))
    >>> gradient, kept = products.at(torch.tensor([1.0, 2.0]), torch.ones(2))
    >>> gradient, products.along(kept, torch.tensor([1.0, 0.5]))
    (tensor([ 3., 12.]), tensor([6., 6.]))
    """

    def __init__(self, function: Callable[[Any, Any], tuple[Any, Any]]) -> None:
        self._function = function
        self._traced: dict[Any, _Traced] = {}

    @torch.no_grad()
    def at(self, given: Any, like: Any) -> tuple[Any, "Kept"]:
        """Return the value at ``given``, and what its products need.

        Args:
            given: a pytree of tensors.
            like: a vector as the products will be with; only its structure, shapes and types matter.
        """
        inputs, spec = tree_flatten(given)
        vector, vector_spec = tree_flatten(like)
        key = spec, vector_spec, tuple((tensor.shape, tensor.dtype) for tensor in (*inputs, *vector))
        if key not in self._traced:
            self._traced[key] = _trace(self._function, inputs, spec, vector, vector_spec)
        traced = self._traced[key]
        value, residuals = traced.first(*inputs)
        return tree_unflatten(value, traced.value_spec), Kept(traced, residuals)

    @staticmethod
    @torch.no_grad()
    def along(kept: "Kept", v: Any) -> Any:
        """Return the product with a vector."""
        traced, residuals = kept
        return tree_unflatten(traced.second(*residuals, *tree_flatten(v)[0]), traced.product_spec)


class _Traced(NamedTuple):
    """The two halves of a traced function, and the structure of what it returns."""

    first: Callable[..., Any]  # inputs -> value, residuals
    second: Callable[..., Any]  # residuals, vector -> product
    value_spec: TreeSpec
    product_spec: TreeSpec


class Kept(NamedTuple):
    """What was computed once for all products."""

    traced: _Traced
    residuals: list[Tensor]


def _trace(
    function: Callable[[Any, Any], tuple[Any, Any]],
    inputs: list[Tensor],
    spec: TreeSpec,
    vector: list[Tensor],
    vector_spec: TreeSpec,
) -> _Traced:
    specs: list[TreeSpec] = []

    def flat(inputs: list[Tensor], vector: list[Tensor]) -> list[Tensor]:
        value, product = function(tree_unflatten(inputs, spec), tree_unflatten(vector, vector_spec))
        (values, value_spec), (products, product_spec) = tree_flatten(value), tree_flatten(product)
        specs[:] = [value_spec, product_spec]
        return [*values, *products]

    # The vector is a fresh one: a tensor that came as an input too would be taken for the same input.
    traced = make_fx(flat)(list(inputs), [torch.zeros_like(tensor) for tensor in vector])
    first, second = _halves(traced, len(vector), specs[0].num_leaves)
    return _Traced(first, second, *specs)


def _halves(traced: GraphModule, vectors: int, values: int) -> tuple[GraphModule, GraphModule]:
    """Cut a graph, whose last inputs are the vector, into what the vector does not reach and what it does."""
    traced.graph.eliminate_dead_code()
    nodes = list(traced.graph.nodes)
    starts = [node for node in nodes if node.op == "placeholder"]
    outputs: list[Node] = list(nodes[-1].args[0])
    vector = starts[len(starts) - vectors :]
    reached = set(vector)
    for node in nodes[:-1]:
        if any(source in reached for source in node.all_input_nodes):
            reached.add(node)
    shared = [node for node in nodes[:-1] if node not in reached]
    wanted = {*outputs[values:], *(source for node in reached for source in node.all_input_nodes)}
    residuals = [node for node in shared if node in wanted]
    first, second = Graph(), Graph()
    copies: dict[Node, Node] = {}
    for node in shared:
        copies[node] = first.node_copy(node, copies.__getitem__)
    first.output(([copies[node] for node in outputs[:values]], [copies[node] for node in residuals]))
    copies = {node: second.placeholder(node.name) for node in (*residuals, *vector)}
    for node, copied in copies.items():
        copied.meta = node.meta
    for node in nodes[:-1]:
        if node in reached and node not in copies:
            copies[node] = second.node_copy(node, copies.__getitem__)
    second.output([copies[node] for node in outputs[values:]])
    make_lean(second)
    return GraphModule(traced, first), GraphModule(traced, second)
