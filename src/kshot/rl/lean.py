"""Fewer operations for the same numbers: what derivatives of linear layers, once traced, can do without."""

import torch
from torch.fx import Graph, Node

__all__ = ["make_lean"]

aten = torch.ops.aten
_FRESH = {aten.mm.default, aten.addmm.default, aten.addmm_.default, aten.add.Tensor}  # they return no view of an input


def make_lean(graph: Graph) -> None:
    """Let matrix products add to what they are added to; leave out sums with zeros, and copies like what they copy.

    ``add(s, mm(a, b))`` becomes ``addmm_(s, a, b)`` where nothing else reads s, and ``addmm(s, a, b)`` where something does.

    Args:
        graph: of plain operations, as ``make_fx`` traces them; changed in place.
    """
    for node in list(graph.nodes):
        if leaner := _leaner(graph, node):
            node.replace_all_uses_with(leaner)
    graph.eliminate_dead_code()


def _leaner(graph: Graph, node: Node) -> Node | None:
    """Return what gives the same as a node with less work, or nothing."""
    match node.target, node.args:
        case ((aten.expand.default | aten._to_copy.default), (Node() as copied, *_)) if _like(copied, node):
            return copied
        case aten.add.Tensor, (Node() as left, Node() as right) if not node.kwargs:
            for start, more in ((left, right), (right, left)):
                if more.target == aten.zeros_like.default and _like(start, node):
                    return start
                if (
                    more.target == aten.mm.default
                    and len(more.users) == 1
                    and _like(more, node)
                    and _kind(start) == _kind(node)
                ):
                    return _added(graph, node, start, more)
    return None


def _added(graph: Graph, node: Node, start: Node, product: Node) -> Node:
    """Return a product that adds to its start, in place of their sum."""
    in_place = start.target in _FRESH and len(start.users) == 1 and _like(start, node)
    with graph.inserting_before(node):
        added = graph.call_function(aten.addmm_.default if in_place else aten.addmm.default, (start, *product.args))
    added.meta = node.meta
    return added


def _like(one: Node, other: Node) -> bool:
    return bool(one.meta["val"].shape == other.meta["val"].shape) and _kind(one) == _kind(other)


def _kind(node: Node) -> tuple[torch.dtype, torch.device]:
    return node.meta["val"].dtype, node.meta["val"].device
