"""Bernoulli bandits: each arm pays one with a probability of its own."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.rl.environments.base import Environment, Tasks, Transition, check_tasks
from kshot.tasks.keys import uniform

__all__ = ["Bandit"]


class Bandit(Environment):
    r"""One choice among arms a step, :math:`r \sim \mathrm{Bernoulli}(p_a)` with :math:`p \sim U[0, 1]` for each arm.

    There is nothing to see: an observation is a single one. The bandits of Yan Duan et al. 2016, "RL²: Fast reinforcement
    learning via slow reinforcement learning".

    Args:
        arms: choices.
        pulls: steps of a trajectory.

    >>> env, generator = Bandit(arms=5, pulls=10), torch.Generator()
    >>> tasks = {"chances": torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]])}
    >>> state, _ = env.reset(tasks, 1, generator)
    >>> env.step(tasks, state, torch.tensor([[[0.0, 1.0, 0.0, 0.0, 0.0]]]), generator).rewards
    tensor([[1.]])
    """

    def __init__(self, arms: int = 5, pulls: int = 10) -> None:
        super().__init__(features=1, actions=arms, horizon=pulls, discrete=True, bound=1.0)

    @property
    def stamp(self) -> dict[str, str]:
        """The protocol of these tasks."""
        return {"data": "bandit", "arms": str(self.actions), "pulls": str(self.horizon)}

    @property
    def task_shapes(self) -> dict[str, tuple[int, ...]]:
        """A task is the chance of each arm."""
        return {"chances": (self.actions,)}

    def draw_tasks(self, seed: int, items: NDArray[np.int64]) -> Tasks:
        """Draw the chances of the arms, ``(tasks, arms)``."""
        return {"chances": torch.from_numpy(uniform(seed, 0, items, self.actions)).to(torch.get_default_dtype())}

    def reset(self, tasks: Tasks, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Begin; there is no state, for which the observation of ones stands."""
        del generator  # nothing is random before the first pull
        count = check_tasks(self, tasks)
        ones = tasks["chances"].new_ones(count, n, 1)
        return ones, ones

    def step(
        self, tasks: Tasks, state: Tensor, actions: Float[Tensor, "tasks n actions"], generator: torch.Generator
    ) -> Transition:
        """Pull an arm of each bandit."""
        chances = (actions * tasks["chances"][:, None]).sum(-1)
        drawn = torch.rand(chances.shape, generator=generator, dtype=chances.dtype)
        paid = (drawn < chances).to(chances)
        return Transition(state, state, paid, torch.zeros_like(paid, dtype=torch.bool))
