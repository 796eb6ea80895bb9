"""Meta-World's manipulation: new goals of one family of tasks, or families that training does not have."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kshot.evaluation import Evaluation
from kshot.rl.adaptation import PolicyGradientSteps
from kshot.rl.environments.simulators import Copies, Options, Task
from kshot.rl.environments.vector import VectorEnvironment
from kshot.rl.evaluation import TEST_SEED, adaptation_trajectories
from kshot.tasks.keys import random_keys

__all__ = ["Split", "meta_world", "success_curve"]

Split: TypeAlias = Literal["train", "test"]


def meta_world(name: str, split: Split = "train", horizon: int = 500, goals_seed: int = 0) -> VectorEnvironment:
    r"""Return ML1, ML10, ML25 or ML45 of Meta-World.

    A task is a family and one of its 50 goals, which the policy does not see. Families take turns, so that a meta-batch of
    a multiple of their number has as many tasks of each; the goals of a family come in random order, each once before any
    comes again:

    .. math::
        f_i = i \bmod F, \qquad g_i = \pi_{\text{seed}}(\lfloor i / F \rfloor), \qquad r \in [0, 10]

    Goals of the test split of ML1 are others than those of training; the other benchmarks test five families that
    training does not have. After Tianhe Yu, Deirdre Quillen, Zhanpeng He, Ryan Julian, Karol Hausman, Chelsea Finn,
    Sergey Levine 2019, "Meta-World: a benchmark and evaluation for multi-task and meta reinforcement learning"; rewards
    are those of the version that is installed, which the stamp names, and do not compare with older ones.

    Each trajectory has a simulator of its own, which takes some 20 MB and a fifth of a second to make. 20 tasks of 10
    trajectories take 4 GB, and so do as many in validation: ``train_policy(..., validation_tasks=10)``.

    Args:
        name: ``"ML10"``, ``"ML25"`` or ``"ML45"``; or a family, such as ``"reach-v3"``, for ML1.
        split: training or test.
        horizon: steps of a trajectory, 500 in their protocol and at most.
        goals_seed: of the goals.

    Raises:
        ImportError: Meta-World is not installed.
        ValueError: there is no such benchmark, family or split, or the horizon is longer.

    >>> env = meta_world("reach-v3", horizon=100)  # doctest: +SKIP
    >>> env.features, env.actions  # doctest: +SKIP
    (39, 4)
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test'; found {split!r}.")
    if horizon > 500:
        raise ValueError(f"a trajectory of Meta-World has at most 500 steps; found horizon {horizon}.")
    benchmark, physics = _benchmark(name, goals_seed)
    classes = benchmark.train_classes if split == "train" else benchmark.test_classes
    tasks = benchmark.train_tasks if split == "train" else benchmark.test_tasks
    goals = [[task for task in tasks if task.env_name == family] for family in classes]

    def set_task(env: Any, task: Task) -> Options:
        env.set_task(goals[int(task["family"])][int(task["goal"])])
        return None

    def draw(seed: int, items: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        return _draw(len(goals), len(goals[0]), seed, items)

    stamp = {"data": f"meta-world {name}", "split": split, "goals seed": str(goals_seed), "physics": physics}
    return VectorEnvironment(Copies(list(classes.values()), set_task, success="success"), draw, horizon, stamp)


def success_curve(
    inner: PolicyGradientSteps,
    environment: VectorEnvironment,
    *,
    tasks: int = 40,
    rates: Sequence[float] = (0.1, 0.05, 0.05),
    trajectories: int = 10,
    discount: float = 0.99,
    decay: float = 1.0,
    seed: int = TEST_SEED,
) -> list[Evaluation]:
    r"""Return how many trajectories of fixed tasks succeed after no step of adaptation, after one, and so on.

    A trajectory succeeds when any of its steps does, as in Meta-World's protocol:

    .. math::
        \text{success}_i = \tfrac{1}{n} \textstyle\sum_j \max_t \text{success}_{i,j}^t

    Arguments are those of ``adaptation_curve``.

    Raises:
        ValueError: the simulators are not told what success is.

    >>> from kshot.rl.policies import policy_for
    >>> env = meta_world("reach-v3", "test", horizon=100)  # doctest: +SKIP
    >>> success_curve(PolicyGradientSteps(policy_for(env), lr=0.1), env, tasks=5)[0].mean  # doctest: +SKIP
    0.0
    """
    if not environment.counts_success:
        raise ValueError("nothing says what success is: pass success= to the simulators.")
    adaptation_trajectories(
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
    sizes = [f"{lr:g}" for lr in rates]
    told = ["0", *(f"{step} of {', '.join(sizes[:step])}" for step in range(1, len(sizes) + 1))]
    return [
        Evaluation("success", True, found.double().mean(-1), {**stamp, "inner steps": steps})
        for steps, found in zip(told, environment.successes[-len(told) :], strict=True)
    ]


@cache  # both splits are drawn at once, which takes seconds
def _benchmark(name: str, seed: int) -> tuple[Any, str]:
    """Return a benchmark, and what it was made with."""
    try:
        import metaworld
        import mujoco
    except ImportError as error:
        raise ImportError("Meta-World is not installed: pip install 'kshot[metaworld]'") from error
    kinds = {kind: getattr(metaworld, kind) for kind in ("ML10", "ML25", "ML45")}
    if name not in kinds and name not in metaworld.ML1.ENV_NAMES:
        raise ValueError(f"expected {', '.join(kinds)} or a family such as 'reach-v3'; found {name!r}.")
    made = kinds[name](seed=seed) if name in kinds else metaworld.ML1(name, seed=seed)
    return made, f"Meta-World {version('metaworld')}, MuJoCo {mujoco.__version__}"


def _draw(families: int, goals: int, seed: int, items: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Return families in turn, and goals in an order of their own for each family and each time round."""
    family, turn = items % families, items // families
    keys = random_keys(seed, 0, family + families * (turn // goals), goals)
    order = np.argsort(keys, axis=-1)
    return {"family": family, "goal": order[np.arange(len(items)), turn % goals]}
