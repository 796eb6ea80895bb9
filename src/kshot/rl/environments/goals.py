"""What a runner is told to do by its reward alone: a direction, or a speed."""

from abc import ABC, abstractmethod
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.tasks.keys import uniform

__all__ = ["Direction", "Goal", "Speed"]


class Goal(ABC):
    """One number that tells a task from others, and what a velocity is worth in it."""

    name: str

    @abstractmethod
    def draw(self, seed: int, items: NDArray[np.int64]) -> Float[Tensor, " tasks"]:
        """Draw goals: the one at ``i`` depends on ``(seed, items[i])`` alone."""

    @abstractmethod
    def reward(self, goal: Float[Tensor, "tasks 1"], velocity: Float[Tensor, "tasks n"]) -> Float[Tensor, "tasks n"]:
        """Return what the velocity is worth."""


@final
class Direction(Goal):
    r"""Forward or backward, with equal chance: :math:`\pm v`.

    >>> Direction().reward(torch.tensor([[1.0], [-1.0]]), torch.tensor([[3.0], [3.0]])).tolist()
    [[3.0], [-3.0]]
    """

    name = "direction"

    def draw(self, seed: int, items: NDArray[np.int64]) -> Float[Tensor, " tasks"]:
        """Draw directions, 1 or -1."""
        forward = torch.from_numpy(uniform(seed, 0, items, 1)[:, 0]) < 0.5
        return torch.where(forward, 1.0, -1.0).to(torch.get_default_dtype())

    def reward(self, goal: Float[Tensor, "tasks 1"], velocity: Float[Tensor, "tasks n"]) -> Float[Tensor, "tasks n"]:
        """Return the velocity in the direction asked for."""
        return goal * velocity


@final
class Speed(Goal):
    r"""As fast as asked: :math:`-|v - v^*|` with :math:`v^* \sim U[0, v_\text{max}]`.

    Args:
        fastest: that is asked for, in metres a second.

    >>> Speed(2.0).reward(torch.tensor([[0.5]]), torch.tensor([[2.0, 0.25]])).tolist()
    [[-1.5, -0.25]]
    """

    name = "velocity"

    def __init__(self, fastest: float) -> None:
        self._fastest = fastest

    def draw(self, seed: int, items: NDArray[np.int64]) -> Float[Tensor, " tasks"]:
        """Draw speeds."""
        return torch.from_numpy(self._fastest * uniform(seed, 0, items, 1)[:, 0]).to(torch.get_default_dtype())

    def reward(self, goal: Float[Tensor, "tasks 1"], velocity: Float[Tensor, "tasks n"]) -> Float[Tensor, "tasks n"]:
        """Return how far the velocity is from it, negated."""
        return -(velocity - goal).abs()
