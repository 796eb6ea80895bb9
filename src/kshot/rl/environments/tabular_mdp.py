"""Small random Markov decision processes in tables."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.rl.environments.base import Environment, Tasks, Transition, check_tasks
from kshot.tasks.keys import normal, uniform

__all__ = ["TabularMDP"]


class TabularMDP(Environment):
    r"""Flat Dirichlet transitions, and normal rewards whose means are drawn for each state and action.

    .. math:: P(\cdot \mid s, a) \sim \mathrm{Dir}(1, \dots, 1), \quad \mu(s, a) \sim N(1, 1), \quad r \sim N(\mu(s, a), 1)

    A trajectory is one episode from the first state; observations are one-hot states. The processes of Ian Osband, Daniel
    Russo, Benjamin Van Roy 2013, "(More) efficient reinforcement learning via posterior sampling", as Yan Duan et al. 2016,
    "RL²", take them.

    Args:
        states: how many.
        choices: actions in each.
        horizon: steps of an episode.

    >>> env = TabularMDP()
    >>> tasks = env.draw_tasks(0, np.arange(2))
    >>> tasks["transitions"].shape, tasks["means"].shape
    (torch.Size([2, 10, 5, 10]), torch.Size([2, 10, 5]))
    """

    def __init__(self, states: int = 10, choices: int = 5, horizon: int = 10) -> None:
        super().__init__(features=states, actions=choices, horizon=horizon, discrete=True, bound=1.0)

    @property
    def stamp(self) -> dict[str, str]:
        """The protocol of these tasks."""
        sizes = f"{self.features} states, {self.actions} actions"
        return {"data": "tabular-mdp", "sizes": sizes, "horizon": str(self.horizon)}

    @property
    def task_shapes(self) -> dict[str, tuple[int, ...]]:
        """A task is its transition probabilities and its mean rewards."""
        states, choices = self.features, self.actions
        return {"transitions": (states, choices, states), "means": (states, choices)}

    def draw_tasks(self, seed: int, items: NDArray[np.int64]) -> Tasks:
        """Draw transitions ``(tasks, s, a, s)`` and mean rewards ``(tasks, s, a)``."""
        states, choices = self.features, self.actions
        # Exponential numbers divided by their sum are a draw of the flat Dirichlet distribution.
        weights = -np.log1p(-uniform(seed, 0, items, states * choices * states)).reshape(-1, states, choices, states)
        means = 1 + normal(seed, 1, items, states * choices).reshape(-1, states, choices)
        transitions = weights / weights.sum(-1, keepdims=True)
        told = {"transitions": transitions, "means": means}
        return {name: torch.from_numpy(array).to(torch.get_default_dtype()) for name, array in told.items()}

    def reset(self, tasks: Tasks, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Begin in the first state."""
        del generator  # it is always the same
        count = check_tasks(self, tasks)
        state = tasks["means"].new_zeros(count, n, self.features)
        state[..., 0] = 1
        return state, state

    def step(
        self, tasks: Tasks, state: Tensor, actions: Float[Tensor, "tasks n actions"], generator: torch.Generator
    ) -> Transition:
        """Be paid for the state and the action, and go where chance leads."""
        means = torch.einsum("tns,tna,tsa->tn", state, actions, tasks["means"])
        ways = torch.einsum("tns,tna,tsaz->tnz", state, actions, tasks["transitions"])
        noise = torch.randn(means.shape, generator=generator, dtype=means.dtype)
        drawn = torch.rand((*means.shape, 1), generator=generator, dtype=means.dtype)
        # The first state whose cumulated chance exceeds the draw; rounding must not let it fall behind the last.
        following = (ways.cumsum(-1) <= drawn).sum(-1).clamp_max(self.features - 1)
        after = torch.nn.functional.one_hot(following, self.features).to(state)
        return Transition(after, after, means + noise, torch.zeros_like(means, dtype=torch.bool))
