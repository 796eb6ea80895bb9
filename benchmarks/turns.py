"""Timing in turns: in each round every variant has one, so that the machine's noise meets all of them."""

import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["in_turns"]


def in_turns(steps: Mapping[str, Callable[[], None]], rounds: int, warm_up: int) -> tuple[dict[str, float], int]:
    """Return the median milliseconds of each step over some rounds, and the seconds that all of them took."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-warm_up, rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    return medians, round(sum(map(sum, times.values())))
