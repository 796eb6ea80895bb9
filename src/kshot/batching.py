"""Many tasks at once: one encoding pass for all, then vmap over tasks, or a loop that gives the same numbers."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

__all__ = ["encode_together", "first_line", "map_leaves", "map_tasks", "stack", "substituted", "unstack"]

logger = logging.getLogger("kshot")
T = TypeVar("T")


def map_leaves(function: Callable[[Tensor], Tensor], tree: T) -> T:
    """Apply a function to every tensor of a pytree."""
    mapped: T = tree_map(function, tree)
    return mapped


def leaves(tree: Any) -> list[Any]:
    """Return the leaves of a pytree, which should be tensors."""
    return tree_leaves(tree)


def substituted(tensors: Sequence[Tensor], positions: Sequence[int], others: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors, with others at some positions.

    >>> substituted([torch.tensor(1), torch.tensor(2)], [1], [torch.tensor(5)])
    [tensor(1), tensor(5)]
    """
    whole = list(tensors)
    for i, tensor in zip(positions, others, strict=True):
        whole[i] = tensor
    return whole


def stack(trees: Sequence[T]) -> T:
    """Stack pytrees of tensors of equal shapes along a new leading axis."""
    stacked: T = tree_map(lambda *tensors: torch.stack(tensors), *trees)
    return stacked


def unstack(tree: T) -> list[T]:
    """Split a pytree along its leading axis into views; the reverse of ``stack``."""
    tensors, spec = tree_flatten(tree)
    return [tree_unflatten(list(one), spec) for one in zip(*tensors, strict=True)]


def encode_together(encode: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    """Encode inputs of ``(m_i, *features)`` in one pass over their concatenation, and split the result again."""
    sizes = [tree_leaves(part)[0].shape[0] for part in parts]
    encoded, spec = tree_flatten(encode(tree_map(lambda *tensors: torch.cat(tensors), *parts)))
    pieces = zip(*(tensor.split(sizes) for tensor in encoded), strict=True)
    return [tree_unflatten(list(piece), spec) for piece in pieces]


def map_tasks(function: Callable[[Any], T], tasks: Any, chunk_size: int | None, name: str) -> T:
    """Apply a function of one task along the leading axis of every tensor of ``tasks`` and stack the results.

    ``torch.func.vmap`` does it, ``chunk_size`` tasks at a time. An operation that vmap does not know falls back to a
    loop over tasks with the same numbers, and the log says so once, with the cause.
    """
    try:
        return torch.func.vmap(function, chunk_size=chunk_size, randomness="different")(tasks)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as cause:
        results = [function(task) for task in unstack(tasks)]
        # Logged only after the loop: when it fails too, the fault is in the function, and the loop's error is clearer.
        _log_fallback(name, first_line(cause))
        return stack(results)


def first_line(error: Exception) -> str:
    r"""Return the first line of what an error says, or its kind where it says nothing.

    >>> first_line(ValueError("one\ntwo")), first_line(ValueError())
    ('one', 'ValueError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@functools.cache
def _log_fallback(name: str, cause: str) -> None:
    logger.warning("%s: vmap over tasks is not possible, so they run one at a time (same numbers): %s", name, cause)
