"""Trajectories of many tasks at once, each task with weights of its own."""

import torch
from torch import Tensor
from torch.func import vmap

from kshot.rl.environments.base import Environment, Tasks, check_tasks, take_step
from kshot.rl.policies import Parameters, Policy
from kshot.rl.trajectories import Trajectories
from kshot.weights import Weights, call

__all__ = ["collect"]


@torch.no_grad()
def collect(
    environment: Environment,
    policy: Policy,
    weights: Weights,
    tasks: Tasks,
    n: int,
    generator: torch.Generator,
) -> Trajectories:
    """Let a policy act for whole trajectories, in all tasks together.

    Args:
        environment: that the tasks are of.
        policy: what acts.
        weights: of the policy, each with a leading task axis: every task may have its own.
        tasks: as the environment draws them.
        n: trajectories of each task.
        generator: of all that is random here.

    Returns:
        Trajectories whose tensors are ``(tasks, time, n, ...)``.

    Raises:
        RuntimeError: the simulation failed; the step is named.
        FloatingPointError: an action, an observation or a reward is not finite; the task and the step are named.

    >>> import numpy as np
    >>> from kshot.rl.environments.navigation import Navigation2D
    >>> from kshot.rl.policies import GaussianPolicy
    >>> env, policy = Navigation2D(), GaussianPolicy(2, 2)
    >>> weights = {name: tensor.expand(3, *tensor.shape) for name, tensor in policy.named_parameters()}
    >>> tasks = env.draw_tasks(0, np.arange(3))
    >>> collect(env, policy, weights, tasks, 20, torch.Generator()).rewards.shape
    torch.Size([3, 100, 20])
    """
    act = vmap(lambda weights, seen: call(policy, weights, seen))
    state, seen = environment.reset(tasks, n, generator)
    running = seen.new_ones(check_tasks(environment, tasks), n)
    steps: list[tuple[Tensor, ...]] = []
    for number in range(environment.horizon):
        parameters: Parameters = act(weights, seen)
        actions = policy.sample(parameters, generator)
        state, following, rewards, done = take_step(environment, number, tasks, state, actions, generator)
        steps.append((seen, actions, rewards.where(running > 0, 0), running))
        seen, running = following, running * ~done
    trajectories = Trajectories(*(torch.stack(parts, 1) for parts in zip(*steps, strict=True)))
    _check_finite(trajectories, type(environment).__name__)
    return trajectories


def _check_finite(trajectories: Trajectories, name: str) -> None:
    """Refuse numbers that are not finite, by the first of them: what follows may only be its consequence."""
    found = []
    for kind, tensor in zip(("observation", "action", "reward"), trajectories[:3], strict=True):
        finite = tensor.isfinite()
        rows = finite.all(-1) if tensor.ndim > 3 else finite
        found += [(step, task, number, kind) for task, step, number in (~rows).nonzero().tolist()]
    if found:
        step, task, number, kind = min(found, key=lambda place: place[0])  # of a step's kinds, the first above
        raise FloatingPointError(
            f"{name}: the {kind} is not finite at step {step} of task {task}, trajectory {number}. The policy may have "
            "diverged: try a smaller inner step size."
        )
