"""How good a policy is before it adapts to a new task and after each step of adaptation."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from kshot.evaluation import Evaluation
from kshot.rl.adaptation import PolicyGradientSteps
from kshot.rl.advantages import to_samples
from kshot.rl.collect import collect
from kshot.rl.environments.base import Environment
from kshot.rl.seeds import generator_of
from kshot.rl.trajectories import Trajectories

__all__ = ["TEST_SEED", "VALIDATION_SEED", "adaptation_curve", "adaptation_trajectories"]

# Of the tasks that no training run draws: its seeds begin at 1,000.
VALIDATION_SEED, TEST_SEED = 1, 2


def adaptation_trajectories(
    inner: PolicyGradientSteps,
    environment: Environment,
    *,
    tasks: int = 40,
    rates: Sequence[float] = (0.1, 0.05, 0.05),
    trajectories: int = 40,
    discount: float = 0.99,
    decay: float = 1.0,
    seed: int = TEST_SEED,
) -> list[Trajectories]:
    """Return what the policy does in fixed tasks before it adapts, and after each step.

    Args:
        inner: the policy, and how it adapts.
        environment: where the tasks come from.
        tasks: how many; they depend on the seed alone.
        rates: the step size of each step. The paper halves it after the first.
        trajectories: of each task before each step, and after the last.
        discount: gamma.
        decay: lambda of the advantage estimates.
        seed: of the tasks, and of all that is random in them.

    Raises:
        ValueError: there is no task, or no trajectory.
    """
    if tasks < 1 or trajectories < 1:
        raise ValueError(f"expected tasks >= 1 and trajectories >= 1; found {tasks} and {trajectories}.")
    drawn = environment.draw_tasks(seed, np.arange(tasks))
    weights, generator = inner.start(tasks), generator_of(seed, 0)
    path = [collect(environment, inner.policy, weights, drawn, trajectories, generator)]
    for lr in rates:
        weights = inner(weights, to_samples(path[-1], discount, decay), lr)
        path.append(collect(environment, inner.policy, weights, drawn, trajectories, generator))
    return path


def adaptation_curve(
    inner: PolicyGradientSteps,
    environment: Environment,
    *,
    tasks: int = 40,
    rates: Sequence[float] = (0.1, 0.05, 0.05),
    trajectories: int = 40,
    discount: float = 0.99,
    decay: float = 1.0,
    seed: int = TEST_SEED,
) -> list[Evaluation]:
    """Return the mean return in fixed tasks after no step of adaptation, after one, and so on, with intervals over tasks.

    Arguments are those of ``adaptation_trajectories``.

    >>> from kshot.rl.environments.navigation import Navigation2D
    >>> from kshot.rl.policies import GaussianPolicy
    >>> inner = PolicyGradientSteps(GaussianPolicy(2, 2), lr=0.1)
    >>> [len(result.scores) for result in adaptation_curve(inner, Navigation2D(horizon=5), tasks=3, trajectories=2)]
    [3, 3, 3, 3]
    """
    path = adaptation_trajectories(
        inner,
        environment,
        tasks=tasks,
        rates=rates,
        trajectories=trajectories,
        discount=discount,
        decay=decay,
        seed=seed,
    )
    stamp = {**environment.stamp, "trajectories": str(trajectories), "task seed": str(seed)}
    return [_evaluation(one.returns(), stamp, step, rates) for step, one in enumerate(path)]


def _evaluation(returns: Tensor, stamp: Mapping[str, str], steps: int, rates: Sequence[float]) -> Evaluation:
    sizes = ", ".join(f"{lr:g}" for lr in rates[:steps])
    told = {"inner steps": f"{steps}" + (f" of {sizes}" if steps else "")}
    return Evaluation("return", True, returns.mean(-1).double(), {**stamp, **told})
