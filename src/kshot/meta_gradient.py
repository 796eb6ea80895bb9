"""The meta-gradient of a batch of tasks: chunk by chunk, compiled where asked for."""

import functools
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from operator import itemgetter
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from kshot.batching import first_line, leaves, map_leaves
from kshot.core import Episode, Learner, Tasks
from kshot.modes import modes
from kshot.nets.steps import Steps
from kshot.program import Program
from kshot.side_by_side import shared_out, side_by_side

__all__ = ["ChunkSize", "MetaGradient"]

logger = logging.getLogger("kshot")

ChunkSize: TypeAlias = int | Literal["auto"] | None
Signature: TypeAlias = tuple[Any, ...]


class MetaGradient:
    """Adds the gradient of the meta-loss to ``.grad`` of a learner's parameters, and returns the loss.

    ``meta_loss(tasks).backward()`` gives the same gradient. This holds one chunk of tasks in memory at a time, and may
    compile what a chunk does into one program, or, for a learner that is one recurrent cell, a step of that cell: sequences
    of all lengths then share a program. A path that is not possible gives way to the next, with the same numbers, and the
    log says so once: compiled, then vmap, then one task at a time.

    Args:
        learner: any learner.
        chunk_size: how many tasks go together; all by default, ``"auto"`` for the fastest on the first tasks.
        compiled: trace the gradient of a chunk and compile it. It costs seconds to minutes for each shape of tasks, needs
            a C++ compiler, and pays where many small operations make a step. The trace holds what does not depend on
            tensors as it was at the first call: whether the learner trains or evaluates is looked at again, the rest not.
        side_by_side: run compiled chunks side by side on a CPU, one on each of torch's threads, all of which are then in
            memory. It pays where a chunk is small enough for the cache of a core: two tasks of 20-way 1-shot of
            a strided net, say, and not where activations are large.

    Raises:
        ValueError: ``chunk_size`` is below 1, or chunks shall run side by side that are not compiled.

    >>> from kshot.core import Batch, one_hot
    >>> from kshot.learners.metric import Prototypical
    >>> learner = Prototypical(torch.nn.Linear(3, 2))
    >>> batch = Batch(torch.randn(4, 6, 3), one_hot([[0, 1, 2, 0, 1, 2]] * 4, 3))
    >>> loss = MetaGradient(learner, chunk_size=2)(Episode(batch, batch))
    >>> loss.shape, learner.encoder.weight.grad.shape
    (torch.Size([]), torch.Size([2, 3]))
    """

    def __init__(
        self, learner: Learner, chunk_size: ChunkSize = None, compiled: bool = False, side_by_side: bool = False
    ) -> None:
        if isinstance(chunk_size, int) and chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, 'auto' or None; found {chunk_size}.")
        if side_by_side and (chunk_size is None or not compiled):
            raise ValueError("side_by_side needs compiled chunks of some size; give chunk_size and compiled too.")
        self.learner, self.chunk_size, self.compiled, self.side_by_side = learner, chunk_size, compiled, side_by_side
        self._programs: dict[Signature, Program | None] = {}
        self._steps = Steps()
        self._fastest: dict[Signature, int] = {}

    def __call__(self, tasks: Tasks) -> Tensor:
        """Add to ``.grad`` and return the mean loss over tasks, detached.

        Raises:
            ValueError: as ``Learner.task_losses``.
        """
        if not isinstance(tasks, Episode):  # of different sizes: they share no program and no vmap
            with self._in_steps():
                loss = self.learner.meta_loss(tasks)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        encoded = self.learner.encode_tasks(tasks)
        ends = [leaf for leaf in leaves(encoded) if leaf.requires_grad]
        # Cut off from the encoder, whose own backward pass waits until all chunks are through.
        cut = _detached(encoded) if ends else encoded
        total, size = len(tasks.query.y), self._size(cut)
        loss = torch.stack(self._shares(list(_split(cut, size)), total)).sum()
        if ends:
            _backward(ends, [leaf.grad for leaf in leaves(cut) if leaf.requires_grad])
        return loss

    def _shares(self, chunks: Sequence[Episode], total: int) -> list[Tensor]:
        """Return the shares of chunks in the mean loss over all tasks, and add their gradients."""
        if self.compiled and not self.learner.one_cell:
            with shared_out(len(chunks) if self._apart(chunks[0]) else 1) as at_a_time:
                programs = [program for chunk in chunks if (program := self._program(chunk, total)) is not None]
                if len(programs) == len(chunks):
                    return _run(programs, chunks, at_a_time)
        return [self._share(chunk, total) for chunk in chunks]

    def _apart(self, chunk: Episode) -> bool:
        return self.side_by_side and leaves(chunk)[0].device.type == "cpu"

    def _share(self, chunk: Episode, total: int) -> Tensor:
        """Return the share of some tasks in the mean loss over all, and add its gradient."""
        with self._in_steps():
            share = self.learner.map_encoded(self.learner.task_loss, chunk).sum() / total
        share.backward()  # type: ignore[no-untyped-call]
        return share.detach()

    def _in_steps(self) -> AbstractContextManager[None]:
        """Return a context in which a learner that is one cell reads by compiled steps, where that is asked for."""
        return self._steps.active() if self.compiled and self.learner.one_cell else nullcontext()

    def _program(self, chunk: Episode, total: int) -> Program | None:
        signature = (total, torch.get_num_threads(), *self._signature(chunk))
        if signature not in self._programs:
            try:
                with torch.random.fork_rng():
                    self._programs[signature] = Program(self.learner, chunk, total, self._apart(chunk))
            except Exception as cause:  # whatever stops a compiler, the eager path has the same numbers
                self._programs[signature] = None
                _log_fallback(type(self.learner).__name__, first_line(cause))
        return self._programs[signature]

    def _size(self, tasks: Episode) -> int:
        total = len(tasks.query.y)
        if self.chunk_size != "auto":
            return self.chunk_size or total
        signature = self._signature(tasks)
        if signature not in self._fastest:
            self._fastest[signature] = self._measured(tasks, total)
        return self._fastest[signature]

    def _measured(self, tasks: Episode, total: int) -> int:
        """Return the fastest chunk size of those that fit into memory."""
        seconds: dict[int, float] = {}
        for size in _candidates(total):
            try:
                seconds[size] = self._seconds(tasks, size)
            except torch.OutOfMemoryError:
                if size == min(_candidates(total)) and not seconds:
                    raise
        return min(seconds, key=seconds.__getitem__)

    def _seconds(self, tasks: Episode, size: int) -> float:
        """Time a step in chunks of this size, and leave no trace in the gradients."""
        chunks = list(_split(_detached(tasks), size))
        before = [parameter.grad for parameter in self.learner.parameters()]
        seconds = []
        try:
            with torch.random.fork_rng():
                for _ in range(3):  # the first run pays for what later ones find warm
                    for parameter in self.learner.parameters():
                        parameter.grad = None
                    start = time.perf_counter()
                    torch.stack(self._shares(chunks, len(tasks.query.y))).sum().item()
                    seconds.append(time.perf_counter() - start)
        finally:
            for parameter, gradient in zip(self.learner.parameters(), before, strict=True):
                parameter.grad = gradient
        return min(seconds)

    def _signature(self, tasks: Episode) -> Signature:
        described = tuple((leaf.shape, leaf.dtype, leaf.device, leaf.requires_grad) for leaf in leaves(tasks))
        # What a learner was told decides the program too: its number of steps, say.
        learners = (part for part in self.learner.modules() if isinstance(part, Learner))
        told = tuple(v for one in learners for v in vars(one).values() if isinstance(v, bool | int | float | str))
        return *described, *told, modes(self.learner, described[0][2])


def _detached(tasks: Episode) -> Episode:
    return map_leaves(lambda leaf: leaf.detach().requires_grad_(leaf.requires_grad), tasks)


def _backward(ends: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Pass gradients on where there are any."""
    known = [(end, gradient) for end, gradient in zip(ends, gradients, strict=True) if gradient is not None]
    if known:
        torch.autograd.backward([end for end, _ in known], [gradient for _, gradient in known])


def _run(programs: Sequence[Program], chunks: Sequence[Episode], at_a_time: int) -> list[Tensor]:
    """Return the shares of chunks, whose random numbers are drawn and gradients added in their order."""
    calls = (partial(one.gradients, one.inputs(chunk)) for one, chunk in zip(programs, chunks, strict=True))
    results = side_by_side(calls, at_a_time)
    return [program.add(chunk, found) for program, chunk, found in zip(programs, chunks, results, strict=True)]


def _split(tasks: Episode, size: int) -> Iterator[Episode]:
    total = len(tasks.query.y)
    if size >= total:
        yield tasks
        return
    for start in range(0, total, size):
        yield map_leaves(itemgetter(slice(start, start + size)), tasks)


def _candidates(total: int) -> list[int]:
    """Return all tasks, a half, a quarter and so on, as far as they are whole chunks or nearly."""
    return sorted({-(-total // parts) for parts in (1, 2, 4, 8, 16, 32)}, reverse=True)


@functools.cache
def _log_fallback(name: str, cause: str) -> None:
    logger.warning("%s: a step cannot be compiled, so it runs uncompiled (same numbers): %s", name, cause)
