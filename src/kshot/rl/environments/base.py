"""What every environment is: tasks to draw, and steps of many trajectories of many tasks together."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Environment", "Tasks", "Transition", "check_tasks", "take_step"]

Tasks: TypeAlias = dict[str, Tensor]  # what tells a task from others, by name; each with a leading task axis
State: TypeAlias = Any  # a pytree of tensors with leading axes (tasks, n)


class Transition(NamedTuple):
    """What a step leads to. ``done`` tells which trajectories it ended."""

    state: State
    observations: Float[Tensor, "tasks n features"]
    rewards: Float[Tensor, "tasks n"]
    done: Bool[Tensor, "tasks n"]


class Environment(ABC):
    """A distribution of Markov decision processes that differ in their task alone.

    State goes in and comes out, so that nothing is kept between two calls. Trajectories go on behind their end: who
    collects them masks what follows.

    Args:
        features: numbers in an observation.
        actions: numbers in an action, or choices where ``discrete``; these come as one-hot rows.
        horizon: steps after which a trajectory ends in any case.
        discrete: whether an action is a choice.
        bound: the largest magnitude of a number in an observation.
    """

    def __init__(
        self, features: int, actions: int, horizon: int, discrete: bool = False, bound: float = float("inf")
    ) -> None:
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1 step; found {horizon}.")
        self.features, self.actions, self.horizon = features, actions, horizon
        self.discrete, self.bound = discrete, bound

    @property
    @abstractmethod
    def stamp(self) -> dict[str, str]:
        """What a result must say of these tasks."""

    @property
    @abstractmethod
    def task_shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors that make a task, by name, with their shapes."""

    @abstractmethod
    def draw_tasks(self, seed: int, items: NDArray[np.int64]) -> Tasks:
        """Draw tasks: the one at ``i`` depends on ``(seed, items[i])`` alone."""

    @abstractmethod
    def reset(
        self, tasks: Tasks, n: int, generator: torch.Generator
    ) -> tuple[State, Float[Tensor, "tasks n features"]]:
        """Begin ``n`` trajectories of each task; return their state and the first observations."""

    @abstractmethod
    def step(
        self, tasks: Tasks, state: State, actions: Float[Tensor, "tasks n actions"], generator: torch.Generator
    ) -> Transition:
        """Take one step of every trajectory."""


def take_step(
    environment: Environment,
    number: int,
    tasks: Tasks,
    state: State,
    actions: Float[Tensor, "tasks n actions"],
    generator: torch.Generator,
) -> Transition:
    """Take step ``number`` of every trajectory.

    Raises:
        RuntimeError: the simulation failed; the step is named.
    """
    try:
        return environment.step(tasks, state, actions, generator)
    except FloatingPointError:
        raise  # it tells the place itself
    except Exception as error:  # whatever a simulator raises
        raise RuntimeError(f"{type(environment).__name__} failed at step {number}: {error}") from error


def check_tasks(environment: Environment, tasks: Tasks) -> int:
    """Return how many tasks there are.

    Raises:
        ValueError: they are not tasks of this environment.
    """
    name, shapes = type(environment).__name__, environment.task_shapes
    if set(tasks) != set(shapes):
        raise ValueError(f"a task of {name} is made of {sorted(shapes)}; found {sorted(tasks)}.")
    counts = {len(tensor) for tensor in tasks.values() if tensor.ndim}
    for key, shape in shapes.items():
        found = tuple(tasks[key].shape)
        if found[1:] != shape or len(found) != len(shape) + 1 or len(counts) != 1:
            raise ValueError(f"tasks[{key!r}] of {name} must be (tasks, {', '.join(map(str, shape))}); found {found}.")
    return counts.pop()
