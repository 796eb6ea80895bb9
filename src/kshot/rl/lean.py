"""Fewer operations for the same numbers: what derivatives of linear layers, once traced, can do without."""

import torch
from torch.fx import Graph, Node

__all__ = ["make_lean"]

aten = torch.ops.aten
_FRESH = {aten.mm.default, aten.addmm.default, aten.addmm_.default, aten.add.Tensor}  # they return no view of an input


def make_lean(graph: Graph) -> None:
    """Let matrix products add to what they are added to; leave out sums with zeros, and copies like what they copy.

    ``add(s, mm(a, b))`` becomes ``addmm_(s, a, b)`` where nothing else reads s, and ``addmm(s, a, b)`` where something does;
    ``mm(a.T, b)`` becomes ``mm(b.T, a).T`` where b has fewer columns than a, which takes a fraction of the time.

    Args:
        graph: of plain operations, as ``make_fx`` traces them; changed in place. What it is given, it leaves as it is.
    """
    for node in list(graph.nodes):
        if leaner := _leaner(graph, node):
            leaner.meta = leaner.meta or node.meta
            node.replace_all_uses_with(leaner)
    graph.eliminate_dead_code()


def _leaner(graph: Graph, node: Node) -> Node | None:
    """Return what gives the same as a node with less work, or nothing."""
    match node.target, node.args:
        case ((aten.expand.default | aten._to_copy.default), (Node() as copied, *_)) if _like(copied, node):
            return copied
        case aten.mm.default, (Node(target=aten.t.default, args=(Node() as wide,)), Node() as narrow):
            return _turned(graph, node, wide, narrow)
        case aten.add.Tensor, (Node() as left, Node() as right) if not node.kwargs:
            return _added(graph, node, left, right) or _added(graph, node, right, left)
    return None


def _turned(graph: Graph, node: Node, wide: Node, narrow: Node) -> Node | None:
    if narrow.meta["val"].shape[1] >= wide.meta["val"].shape[1]:
        return None
    with graph.inserting_before(node):
        product = graph.call_function(aten.mm.default, (graph.call_function(aten.t.default, (narrow,)), wide))
        return graph.call_function(aten.t.default, (product,))


def _added(graph: Graph, node: Node, start: Node, more: Node) -> Node | None:
    if more.target == aten.zeros_like.default and _like(start, node):
        return start
    only_here = more.target == aten.mm.default and len(more.users) == 1
    if not (only_here and _like(more, node) and _kind(start) == _kind(node)):
        return None
    in_place = start.target in _FRESH and len(start.users) == 1 and _like(start, node)
    with graph.inserting_before(node):
        return graph.call_function(aten.addmm_.default if in_place else aten.addmm.default, (start, *more.args))


def _like(one: Node, other: Node) -> bool:
    return bool(one.meta["val"].shape == other.meta["val"].shape) and _kind(one) == _kind(other)


def _kind(node: Node) -> tuple[torch.dtype, torch.device]:
    return node.meta["val"].dtype, node.meta["val"].device
