"""Calls side by side, each on its share of torch's threads.

Small operations gain little from a second thread; two chunks of tasks, each on a thread of its own, take half the time
together, and their activations stay in the caches of their cores.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

from kshot.autocast import autocast_as_now

__all__ = ["shared_out", "side_by_side"]

T = TypeVar("T")


@contextmanager
def shared_out(calls: int) -> Iterator[int]:
    """Give each of some calls its share of torch's threads on a CPU; yield how many calls run at a time.

    >>> threads = torch.get_num_threads()
    >>> with shared_out(threads) as at_a_time:
    ...     at_a_time == threads, torch.get_num_threads()
    (True, 1)
    """
    threads = torch.get_num_threads()
    at_a_time = min(calls, threads)
    if at_a_time == 1:
        yield 1
        return
    torch.set_num_threads(threads // at_a_time)
    try:
        yield at_a_time
    finally:
        torch.set_num_threads(threads)


def side_by_side(calls: Iterable[Callable[[], T]], at_a_time: int) -> Iterator[T]:
    """Yield the results of some calls in their order, of which so many run at a time; a call that fails raises here.

    A call must let go of Python's lock, as compiled programs do, and change nothing that others see. The caller's thread
    takes the calls from the iterable, in turn.

    >>> list(side_by_side([lambda: 1, lambda: 2, lambda: 3], 2))
    [1, 2, 3]
    """
    if at_a_time == 1:
        yield from (call() for call in calls)
        return
    autocast = autocast_as_now("cpu")  # each thread has a state of its own

    def run(call: Callable[[], T]) -> T:
        with autocast():
            return call()

    yield from _pool(at_a_time, torch.get_num_threads()).map(run, calls)


@cache
def _pool(size: int, threads_of_each: int) -> ThreadPoolExecutor:
    """Return threads that stay: a new one would have to get from the system what memory the last one gave back."""
    pool = ThreadPoolExecutor(size, initializer=torch.set_num_threads, initargs=(threads_of_each,))
    all_have_started = Barrier(size)  # a late one would tell torch its number when the caller has gone on
    list(pool.map(lambda _: all_have_started.wait(), range(size)))
    return pool
