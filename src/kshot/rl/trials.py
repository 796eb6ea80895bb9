"""Trials: episodes of one task in a row, through which a recurrent policy keeps its state."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kshot.rl.environments.base import Environment, Tasks, check_tasks, take_step
from kshot.rl.recurrent_policy import RecurrentPolicy

__all__ = ["Trials", "collect_trials"]


class Trials(NamedTuple):
    """All steps of a trial for each of n tasks, its episodes one after the other.

    The mask is zero for steps behind the end of an episode, which are taken all the same so that episodes stay together.
    """

    inputs: Float[Tensor, "time n inputs"]
    actions: Float[Tensor, "time n actions"]
    log_probs: Float[Tensor, "time n"]
    values: Float[Tensor, "time n"]
    rewards: Float[Tensor, "time n"]
    mask: Float[Tensor, "time n"]

    def returns(self) -> Float[Tensor, " n"]:
        """Return the sum of the rewards of each trial."""
        return self.rewards.sum(0)


@torch.no_grad()
def collect_trials(
    environment: Environment, policy: RecurrentPolicy, tasks: Tasks, episodes: int, generator: torch.Generator
) -> Trials:
    """Let a policy act in each task for a trial.

    Args:
        environment: with choices for actions.
        policy: what acts.
        tasks: one for each trial.
        episodes: of a trial, each of the environment's horizon.
        generator: of all that is random here.

    Raises:
        ValueError: actions are no choices, or there is no episode.
        RuntimeError: the simulation failed; the step is named.
        FloatingPointError: an observation or a reward is not finite; the task and the step are named.

    >>> import numpy as np
    >>> from kshot.rl.environments.bandit import Bandit
    >>> env = Bandit(arms=5, pulls=10)
    >>> policy = RecurrentPolicy(env.features, env.actions, hidden=8)
    >>> collect_trials(env, policy, env.draw_tasks(0, np.arange(3)), 1, torch.Generator()).returns().shape
    torch.Size([3])
    """
    if not environment.discrete or episodes < 1:
        kind = "choices" if environment.discrete else "numbers"
        raise ValueError(f"expected actions that are choices, and an episode at least; found {kind}, {episodes}.")
    n = check_tasks(environment, tasks)
    memory, action = policy.start(n), policy.start(n).new_zeros(n, environment.actions)
    reward = ended = action[:, 0]
    steps: list[tuple[Tensor, ...]] = []
    for _ in range(episodes):
        state, seen = environment.reset(tasks, 1, generator)
        running = torch.ones_like(reward)
        for number in range(environment.horizon):
            inputs = policy.inputs(seen[:, 0], action, reward, ended)
            acted = policy(inputs[None], memory)
            likely, memory = acted.logits[0].log_softmax(-1), acted.state
            choice = torch.multinomial(likely.exp(), 1, generator=generator)
            action = F.one_hot(choice[:, 0], environment.actions).to(likely)
            state, seen, rewards, done = take_step(environment, number, tasks, state, action[:, None], generator)
            reward = rewards[:, 0].where(running > 0, 0)
            _check_finite(type(environment).__name__, number, reward=reward[:, None], observation=seen[:, 0])
            chosen = likely.gather(1, choice)[:, 0]
            steps.append((inputs, action, chosen, acted.values[0], reward, running))
            running = running * ~done[:, 0]
            ended = 1 - running
        ended = torch.ones_like(ended)
    return Trials(*(torch.stack(parts) for parts in zip(*steps, strict=True)))


def _check_finite(name: str, step: int, **told: Tensor) -> None:
    """Refuse numbers that are not finite where they come up: choices cannot be drawn by what follows from them."""
    for kind, tensor in told.items():
        finite = tensor.isfinite().all(1)
        if not bool(finite.all()):
            task = int((~finite).nonzero()[0])
            raise FloatingPointError(f"{name}: the {kind} is not finite at step {step} of an episode of task {task}.")
