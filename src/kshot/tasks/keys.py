"""Random numbers that depend on (seed, item) alone, drawn for many items at once."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["choose", "normal", "random_keys", "uniform", "whole_number"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def random_keys(seed: int, stream: int, items: NDArray[np.int64], size: int) -> NDArray[np.uint64]:
    """Return ``(t, size)`` random 64-bit keys: row i depends on (seed, stream, items[i]) and nothing else.

    The generator is SplitMix64 with one state per item (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
    generators"). NumPy's own generators have one state each, so drawing for many items would be a Python loop.

    >>> import numpy as np
    >>> whole = random_keys(0, 0, np.arange(10), 3)
    >>> bool((random_keys(0, 0, np.array([7]), 3) == whole[7]).all())
    True
    """
    start = _mix(np.array([seed], np.int64).astype(np.uint64) + _GOLDEN) + np.uint64(stream)
    states = _mix(_mix(start) ^ (items.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return _mix(states[:, None] + _GOLDEN * np.arange(1, size + 1, dtype=np.uint64))


def uniform(seed: int, stream: int, items: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Return ``(t, size)`` uniform numbers in [0, 1); they depend on the arguments as in ``random_keys``."""
    bits = random_keys(seed, stream, items, size) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def normal(seed: int, stream: int, items: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Return ``(t, size)`` standard normal numbers, drawn by Box and Muller; they depend on what ``random_keys`` do."""
    # Pair by pair, so that a longer row begins as a shorter one does.
    pairs = uniform(seed, stream, items, 2 * size).reshape(len(items), size, 2)
    radius: NDArray[np.float64] = np.sqrt(-2 * np.log1p(-pairs[..., 0]))
    return radius * np.cos(2 * np.pi * pairs[..., 1])


def whole_number(seed: int, stream: int, items: NDArray[np.int64], least: int, most: int) -> NDArray[np.int64]:
    """Return a whole number from least to most, both included, for each item; it depends on them as in ``random_keys``."""
    keys = random_keys(seed, stream, items, 1)[:, 0]
    return least + (keys % np.uint64(most - least + 1)).astype(np.int64)


def choose(keys: NDArray[np.uint64], k: int) -> NDArray[np.int64]:
    """Return the positions of the k smallest keys along the last axis, smallest first: a draw without replacement."""
    if k < keys.shape[-1]:
        chosen = np.argpartition(keys, k - 1, axis=-1)[..., :k]
    else:
        chosen = np.broadcast_to(np.arange(k), keys.shape)
    order = np.argsort(np.take_along_axis(keys, chosen, -1), -1)
    return np.take_along_axis(chosen, order, -1)
