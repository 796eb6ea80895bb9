"""Navigation in the plane: walk from the origin to a goal that only the reward tells."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.rl.environments.base import Environment, Tasks, Transition, check_tasks
from kshot.tasks.keys import uniform

__all__ = ["Navigation2D"]


class Navigation2D(Environment):
    r"""A point in the plane is moved to the goal of its task.

    .. math::
        s_0 = 0, \quad s' = s + 0.1\, \mathrm{clip}(a, -1, 1), \quad r = -\lVert s' - g \rVert,
        \quad g \sim U[-0.5, 0.5]^2

    A trajectory ends when both coordinates are less than 0.01 away from the goal, or after the horizon. These are the
    semantics of the code of Chelsea Finn, Pieter Abbeel, Sergey Levine 2017, "Model-agnostic meta-learning for fast
    adaptation of deep networks": the reward is minus the distance, where their text says its square, and policies act in
    [-1, 1], which is then scaled to the 0.1 a step that the text tells of.

    Args:
        horizon: steps of a trajectory at most.
        tells_goal: observations end with the goal, as for the oracle of the paper.

    >>> env, generator = Navigation2D(), torch.Generator()
    >>> tasks = env.draw_tasks(0, np.arange(3))
    >>> state, observations = env.reset(tasks, 20, generator)
    >>> env.step(tasks, state, torch.ones(3, 20, 2), generator).observations[0, 0]
    tensor([0.1000, 0.1000])
    """

    def __init__(self, horizon: int = 100, tells_goal: bool = False) -> None:
        super().__init__(features=4 if tells_goal else 2, actions=2, horizon=horizon, bound=max(0.5, 0.1 * horizon))
        self.tells_goal = tells_goal

    @property
    def stamp(self) -> dict[str, str]:
        """The protocol of these tasks."""
        told = {"observation": "position and goal"} if self.tells_goal else {}
        return {"data": "navigation2d", "reward": "minus distance", "horizon": str(self.horizon), **told}

    @property
    def task_shapes(self) -> dict[str, tuple[int, ...]]:
        """A task is its goal."""
        return {"goal": (2,)}

    def draw_tasks(self, seed: int, items: NDArray[np.int64]) -> Tasks:
        """Draw goals, ``(tasks, 2)``."""
        return {"goal": torch.from_numpy(uniform(seed, 0, items, 2) - 0.5).to(torch.get_default_dtype())}

    def reset(self, tasks: Tasks, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Begin at the origin."""
        del generator  # every trajectory begins at the same place
        count = check_tasks(self, tasks)
        position = tasks["goal"].new_zeros(count, n, 2)
        return position, self._seen(tasks, position)

    def step(
        self, tasks: Tasks, state: Tensor, actions: Float[Tensor, "tasks n actions"], generator: torch.Generator
    ) -> Transition:
        """Move, and be paid by how near the goal is."""
        del generator  # moves are certain
        position = state + 0.1 * actions.clamp(-1, 1)
        away = position - tasks["goal"][:, None]
        return Transition(position, self._seen(tasks, position), -away.norm(dim=-1), (away.abs() < 0.01).all(-1))

    def _seen(self, tasks: Tasks, position: Tensor) -> Tensor:
        if not self.tells_goal:
            return position
        return torch.cat([position, tasks["goal"][:, None].expand_as(position)], -1)
