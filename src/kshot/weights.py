"""A module called with other weights than its own."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["Weights", "call", "one_thread", "own_weights", "replaced"]

Weights: TypeAlias = dict[str, Tensor]  # by the names of ``module.named_parameters()``

_LOCK = RLock()


def one_thread() -> AbstractContextManager[Any]:
    """Return a context in which one thread is at a time: what is changed on modules all threads see."""
    return nullcontext() if torch.compiler.is_compiling() else _LOCK  # the compiler cannot follow a lock


def own_weights(module: nn.Module) -> Weights:
    """Return a module's parameters by name: its own, not those that another thread has put there for a while.

    >>> list(own_weights(nn.Linear(1, 1)))
    ['weight', 'bias']
    """
    with one_thread():
        return dict(module.named_parameters())


def call(module: nn.Module, weights: Mapping[str, Tensor], *inputs: Any) -> Any:
    """Call a module with some or all of its parameters replaced.

    >>> import torch
    >>> call(nn.Linear(1, 1, bias=False), {"weight": torch.tensor([[3.0]])}, torch.tensor([2.0]))
    tensor([6.])
    """
    with replaced(module, weights):
        return module(*inputs)


@contextmanager
def replaced(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let tensors stand in for parameters and buffers of a module; names that it lacks are refused with KeyError.

    A parameter tied to several places is replaced in all of them, and a submodule that is registered twice is visited
    once: ``torch.func.functional_call`` visits it twice and leaves it without its parameter (pytorch issue 164759).
    Other threads wait meanwhile.
    """
    with one_thread():
        yield from _replaced(module, weights)


def _replaced(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    places = _places(module)
    before = [
        (tensors, key, tensors[key]) for name in weights for tensors, key in places[name]
    ]  # every one read before the first is written
    try:
        for name, tensor in weights.items():
            for tensors, key in places[name]:
                tensors[key] = tensor
        yield
    finally:
        for tensors, key, tensor in before:
            tensors[key] = tensor


def _places(module: nn.Module) -> dict[str, list[tuple[Any, str]]]:
    """Return where each named parameter and buffer is stored; tied ones have several places."""
    places: dict[str, list[tuple[Any, str]]] = {}
    first: dict[int, str] = {}
    for prefix, part in module.named_modules():  # each module object once
        for tensors in (part._parameters, part._buffers):
            for key, tensor in tensors.items():
                if tensor is not None:
                    name = first.setdefault(id(tensor), f"{prefix}.{key}" if prefix else key)
                    places.setdefault(name, []).append((tensors, key))
    return places
