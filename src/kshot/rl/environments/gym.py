"""Environments of kshot as Gymnasium's, for whatever trains there: one trajectory, or a batch that needs no processes.

Importing this registers them; Gymnasium does it by ``gymnasium.make("kshot.rl.environments.gym:kshot/Navigation2D-v0")``.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map

from kshot.rl.environments.bandit import Bandit
from kshot.rl.environments.base import Environment, Tasks, check_tasks
from kshot.rl.environments.navigation import Navigation2D
from kshot.rl.environments.tabular_mdp import TabularMDP

try:
    import gymnasium
    from gymnasium import spaces
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ImportError as error:
    raise ImportError("this needs gymnasium: pip install 'kshot[rl]'") from error

__all__ = ["TaskEnv", "TaskVectorEnv"]


class TaskEnv(gymnasium.Env[Any, Any]):
    """One trajectory at a time of one task.

    A task is drawn when an episode begins for which none was set, by ``set_task`` or by ``reset(options={"task": …})``.

    Args:
        environment: where tasks and steps come from.

    >>> env = gymnasium.make("kshot/Bandit-v0", arms=3, pulls=2).unwrapped
    >>> env.set_task({"chances": np.ones(3)})
    >>> _ = env.reset(seed=0)
    >>> [env.step(1)[1] for _ in range(2)]
    [1.0, 1.0]
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.observation_space, self.action_space = _spaces(environment)
        self._task: Tasks | None = None

    def sample_tasks(self, n: int) -> list[dict[str, NDArray[Any]]]:
        """Draw n tasks, by the generator that ``reset(seed=…)`` seeds."""
        drawn = self.environment.draw_tasks(int(self.np_random.integers(2**31)), np.arange(n))
        return [{name: leaf[i].numpy() for name, leaf in drawn.items()} for i in range(n)]

    def set_task(self, task: dict[str, Any]) -> None:
        """Keep to a task from the next episode on.

        Raises:
            ValueError: it is no task of this environment.
        """
        told = {name: _tensor(leaf)[None] for name, leaf in task.items()}
        check_tasks(self.environment, told)
        self._task = told

    def get_task(self) -> dict[str, NDArray[Any]] | None:
        """Return the task that episodes keep to, where there is one."""
        return None if self._task is None else {name: leaf[0].numpy() for name, leaf in self._task.items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        if options and "task" in options:
            self.set_task(options["task"])
        self._generator = torch.Generator().manual_seed(int(self.np_random.integers(2**31)))
        self._now = self._task or self.environment.draw_tasks(int(self.np_random.integers(2**31)), np.arange(1))
        self._state, seen = self.environment.reset(self._now, 1, self._generator)
        self._steps = 0
        return seen[0, 0].numpy().copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step."""
        actions = _actions(self.environment, np.asarray(action)[None])[:, None]
        found = self.environment.step(self._now, self._state, actions, self._generator)
        self._state, self._steps = found.state, self._steps + 1
        ended, cut = bool(found.done), self._steps >= self.environment.horizon
        return found.observations[0, 0].numpy().copy(), float(found.rewards), ended, cut, {}

    def close(self) -> None:
        """Stop the threads of the environment."""
        getattr(self.environment, "close", lambda: None)()


class TaskVectorEnv(VectorEnv[Any, Any, Any]):
    """A trajectory of each of many tasks, in one batch; what has ended waits for ``reset(options={"reset_mask": …})``.

    Args:
        environment: where tasks and steps come from.
        num_envs: how many tasks.

    >>> env = gymnasium.make_vec("kshot/Navigation2D-v0", num_envs=3)
    >>> env.reset(seed=0)[0].shape
    (3, 2)
    """

    metadata = {  # noqa: RUF012, as Gymnasium declares it
        "autoreset_mode": AutoresetMode.DISABLED
    }

    _tasks: Tasks
    _state: Any
    _seen: Tensor
    _steps: Tensor

    def __init__(self, environment: Environment, num_envs: int) -> None:
        self.environment, self.num_envs = environment, num_envs
        self.single_observation_space, self.single_action_space = _spaces(environment)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes of new tasks, or of ``options["tasks"]``: everywhere, or where ``options["reset_mask"]`` holds.

        Raises:
            ValueError: the tasks are none of this environment, or not one for each of its copies.
        """
        super().reset(seed=seed)
        told, everywhere = options or {}, torch.ones(self.num_envs, dtype=torch.bool)
        mask = torch.as_tensor(told.get("reset_mask", everywhere))
        number = int(self.np_random.integers(2**31))
        tasks = self._told(told["tasks"]) if told.get("tasks") else self._drawn(number)
        generator = torch.Generator().manual_seed(number)
        state, seen = self.environment.reset(tasks, 1, generator)
        if not bool(mask.all()):
            old = (self._tasks, self._state, self._seen, self._steps)
            new = (tasks, state, seen, torch.zeros_like(self._steps))
            both = tree_map(lambda one, other: torch.where(_like(mask, one), other, one), old, new)
            self._tasks, self._state, self._seen, self._steps = both
        else:
            self._tasks, self._state, self._seen, self._generator = tasks, state, seen, generator
            self._steps = torch.zeros(self.num_envs, dtype=torch.int64)
        return self._seen[:, 0].numpy().copy(), {}

    def _told(self, tasks: dict[str, Any]) -> Tasks:
        told = {name: _tensor(leaf) for name, leaf in tasks.items()}
        if (found := check_tasks(self.environment, told)) != self.num_envs:
            raise ValueError(f"expected a task for each of {self.num_envs} copies; found {found}.")
        return told

    def _drawn(self, seed: int) -> Tasks:
        return self.environment.draw_tasks(seed, np.arange(self.num_envs))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step in every task."""
        told = _actions(self.environment, np.asarray(actions))[:, None]
        found = self.environment.step(self._tasks, self._state, told, self._generator)
        self._state, self._seen, self._steps = found.state, found.observations, self._steps + 1
        cut = (self._steps >= self.environment.horizon).numpy()
        return self._seen[:, 0].numpy().copy(), found.rewards[:, 0].numpy(), found.done[:, 0].numpy(), cut, {}

    def close_extras(self, **_: Any) -> None:
        """Stop the threads of the environment."""
        getattr(self.environment, "close", lambda: None)()


def _spaces(environment: Environment) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    seen = spaces.Box(-environment.bound, environment.bound, (environment.features,), np.float32)
    if environment.discrete:
        return seen, spaces.Discrete(environment.actions)
    return seen, spaces.Box(-1.0, 1.0, (environment.actions,), np.float32)


def _actions(environment: Environment, actions: NDArray[Any]) -> Tensor:
    """Return actions as an environment takes them, ``(tasks, actions)``: choices as one-hot rows."""
    if environment.discrete:
        return torch.eye(environment.actions)[torch.as_tensor(actions, dtype=torch.int64)]
    return torch.as_tensor(actions, dtype=torch.get_default_dtype())


def _tensor(leaf: Any) -> Tensor:
    return torch.as_tensor(np.asarray(leaf), dtype=torch.get_default_dtype())


def _like(mask: Tensor, leaf: Tensor) -> Tensor:
    return mask.view(-1, *(1,) * (leaf.ndim - 1))


def _register(name: str, kind: Callable[..., Environment]) -> None:
    def alone(**told: Any) -> TaskEnv:
        return TaskEnv(kind(**told))

    def together(num_envs: int = 1, **told: Any) -> TaskVectorEnv:
        return TaskVectorEnv(kind(**told), num_envs)

    gymnasium.register(f"kshot/{name}-v0", entry_point=alone, vector_entry_point=together)


def _later(module: str, name: str) -> Callable[..., Environment]:
    """Return what imports an environment when one is made."""

    def make(**told: Any) -> Environment:
        return getattr(import_module(f"kshot.rl.environments.{module}"), name)(**told)  # type: ignore[no-any-return]

    return make


_KINDS: dict[str, Callable[..., Environment]] = {kind.__name__: kind for kind in (Navigation2D, Bandit, TabularMDP)}
if find_spec("mujoco") is not None:
    _KINDS["HalfCheetahDir"] = _later("half_cheetah", "HalfCheetahDir")
    _KINDS["HalfCheetahVel"] = _later("half_cheetah", "HalfCheetahVel")
    _KINDS["HalfCheetahSlope"] = _later("slopes", "HalfCheetahSlope")
    _KINDS["AntDir"] = _later("ant", "AntDir")
    _KINDS["AntVel"] = _later("ant", "AntVel")
for _name, _kind in _KINDS.items():
    if f"kshot/{_name}-v0" not in gymnasium.registry:
        _register(_name, _kind)
