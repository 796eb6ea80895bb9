import math

import numpy as np
import torch

from kshot.tasks.sinusoid import KnownSinusoids, Sinusoids


def test_points_lie_on_their_wave() -> None:
    source = Sinusoids(shots=7, queries=9, seed=3)
    items = np.arange(500)
    tasks, (amplitude, phase) = source.sample(items), source.waves(items)
    for x, y in tasks:
        torch.testing.assert_close(y, amplitude * (x - phase).sin())
        assert x.min() >= -5
        assert x.max() <= 5
    assert not torch.equal(tasks.support.x[:, :7], tasks.query.x[:, :7])


def test_the_distribution_is_that_of_the_paper() -> None:
    amplitude, phase = Sinusoids().waves(np.arange(20_000))
    for value, low, high in ((amplitude, 0.1, 5.0), (phase, 0.0, math.pi)):
        assert value.min() >= low
        assert value.max() <= high
        deviation = (high - low) / math.sqrt(12)
        assert abs(value.mean().item() - (low + high) / 2) < 5 * deviation / math.sqrt(20_000)
        assert abs(value.std().item() / deviation - 1) < 0.02


def test_support_from_half_the_range() -> None:
    task = Sinusoids(shots=50, queries=50, x_range=(-5.0, 0.0))[0]
    assert task.support.x.max() <= 0
    assert task.query.x.max() > 1


def test_an_oracle_is_told_the_wave_of_the_same_points() -> None:
    known, plain = KnownSinusoids(shots=3, seed=1)[4], Sinusoids(shots=3, seed=1)[4]
    for (told, y), (x, same) in zip(known, plain, strict=True):
        assert torch.equal(told[:, :1], x)
        torch.testing.assert_close(y, told[:, 1:2] * (x - told[:, 2:]).sin())
        assert torch.equal(y, same)
