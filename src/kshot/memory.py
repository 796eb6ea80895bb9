"""How many bytes of tensors a computation holds at its peak."""

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["PeakMemory", "peak_bytes"]


def peak_bytes(function: Callable[[], Any]) -> int:
    """Return the peak of bytes that a computation allocates, beyond what was there before it.

    >>> import torch
    >>> peak_bytes(lambda: torch.zeros(1000).exp().sum())  # 4,000 bytes twice, while exp reads and writes
    8000
    """
    memory = PeakMemory()
    with memory:
        function()
    return memory.peak


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, counts the bytes of every tensor made, until it is freed.

    What an operation needs only while it runs (the workspace of a convolution, say) is not seen. On torch's ``meta``
    device nothing is computed or allocated, and the count is the same.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.present = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and count what it made."""
        del types
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given:
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._seen:  # a view of what was counted
            return
        self._seen.add(key)
        self.present += storage.nbytes()
        self.peak = max(self.peak, self.present)
        weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.present -= size
