"""A vector environment of Gymnasium as simulators."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kshot.rl.environments.simulators import Options, Simulators, Stepped, Task, guard, name_of

try:
    from gymnasium.vector import AutoresetMode, VectorEnv
except ImportError as error:
    raise ImportError("this needs gymnasium: pip install 'kshot[rl]'") from error

__all__ = ["Vectorized"]

AnyVectorEnv: TypeAlias = VectorEnv[Any, Any, Any]


class Vectorized(Simulators):
    """A vector environment of Gymnasium, with its own processes or its own batch.

    It is made again when another number of trajectories is asked for. What has ended waits: with ``AutoresetMode.DISABLED``
    it is reset, as that mode asks, with ``NEXT_STEP`` it resets itself, and in both what it does from then on is left out.
    ``SAME_STEP`` is refused: the last observation would be that of a new episode.

    Args:
        make: makes a vector environment of as many environments as it is told.
        set_tasks: is called with it and the tasks, a dict of arrays with a leading axis of environments, before each
            reset. What it returns goes to the reset as its options.
        success: as for ``Copies``.

    Raises:
        ValueError: its mode of autoreset is another, or is not told in its ``metadata``.

    >>> import gymnasium
    >>> def make(n: int) -> AnyVectorEnv:  # or AsyncVectorEnv, for processes
    ...     pendulums = [lambda: gymnasium.make("Pendulum-v1")] * n
    ...     return gymnasium.vector.SyncVectorEnv(pendulums, autoreset_mode=AutoresetMode.DISABLED)
    >>> vector = Vectorized(make, lambda env, tasks: env.set_attr("g", list(tasks["g"])))
    >>> vector.reset({"g": np.array([9.8, 1.6])}, seeds=[0, 0]).shape
    (2, 3)
    """

    def __init__(
        self,
        make: Callable[[int], AnyVectorEnv],
        set_tasks: Callable[[AnyVectorEnv, Task], Options],
        success: str | None = None,
    ) -> None:
        self._make, self._set_tasks, self.success = make, set_tasks, success
        self._env: AnyVectorEnv | None = None
        first = self._sized(1)
        self.name, self._mode = name_of(first), first.metadata.get("autoreset_mode")
        self.observation_space, self.action_space = first.single_observation_space, first.single_action_space
        if self._mode not in (AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP):
            self.close()
            raise ValueError(
                f"{self.name}: metadata['autoreset_mode'] must be DISABLED or NEXT_STEP; found {self._mode}. Gymnasium's "
                "own vector environments take it as autoreset_mode=."
            )

    def reset(self, tasks: Task, seeds: list[int]) -> NDArray[Any]:
        """Begin a trajectory of each task; return the first observations."""
        env = self._sized(len(seeds))
        self._options = guard(None, "the tasks cannot be set", self._set_tasks, env, tasks) or {}
        # One number for all: environments that are one batch take no list. Gymnasium's own count on from it.
        seen, _ = guard(None, "reset failed", env.reset, seed=seeds[0], options=dict(self._options))
        self._seen, self._over = np.array(seen), np.zeros(len(seeds), np.bool_)
        return self._seen.copy()

    def step(self, actions: NDArray[Any], running: NDArray[np.bool_]) -> Stepped:
        """Take a step everywhere, and leave out what does not run."""
        env = self._sized(len(running))
        if self._mode is AutoresetMode.DISABLED and self._over.any():
            options = {**self._options, "reset_mask": self._over}
            guard(None, "reset of what has ended failed", env.reset, options=options)
        seen, rewards, terminated, truncated, told = guard(None, "the simulators failed", env.step, actions)
        self._over = np.asarray(terminated) | np.asarray(truncated)
        self._seen[running] = np.asarray(seen)[running]
        succeeded = np.zeros(len(running), np.bool_)
        if self.success is not None:
            succeeded |= np.asarray(guard(None, "info tells no success", told.__getitem__, self.success)).astype(bool)
        return Stepped(self._seen.copy(), np.where(running, rewards, 0.0), self._over & running, succeeded & running)

    def close(self) -> None:
        """Close it; a later reset makes another."""
        if self._env is not None:
            with suppress(Exception):  # what has crashed need not close
                self._env.close()
        self._env = None

    def _sized(self, count: int) -> AnyVectorEnv:
        if self._env is not None and self._env.num_envs == count:
            return self._env
        self.close()
        self._env = self._make(count)
        return self._env
