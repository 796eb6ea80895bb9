"""Third-party simulators for many trajectories together: what they are, and copies of one environment."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

try:
    import gymnasium
except ImportError as error:
    raise ImportError("this needs gymnasium: pip install 'kshot[rl]'") from error

__all__ = ["Copies", "Options", "SimulatorError", "Simulators", "Stepped", "Task", "guard", "name_of"]

Task: TypeAlias = dict[str, Any]  # arrays and numbers, by name
Options: TypeAlias = dict[str, Any] | None  # for reset()
AnyEnv: TypeAlias = gymnasium.Env[Any, Any]


class SimulatorError(Exception):
    """A simulator failed: that of a row, where it is known which."""

    def __init__(self, what: str, cause: Exception, row: int | None = None) -> None:
        super().__init__(f"{what}: {type(cause).__name__}: {cause}".rstrip(": "))
        self.row = row


class Stepped(NamedTuple):
    """What a step led to, a row for each trajectory; rows that did not run hold what they held."""

    observations: NDArray[Any]
    rewards: NDArray[np.float64]
    ended: NDArray[np.bool_]
    succeeded: NDArray[np.bool_]


class Simulators(ABC):
    """As many trajectories as are asked for, a row each. Tasks have a leading axis of rows here."""

    name: str
    families = 1
    success: str | None
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]

    @abstractmethod
    def reset(self, tasks: Task, seeds: list[int]) -> NDArray[Any]:
        """Begin a trajectory of each task; return the first observations."""

    @abstractmethod
    def step(self, actions: NDArray[Any], running: NDArray[np.bool_]) -> Stepped:
        """Take a step where it runs."""

    @abstractmethod
    def close(self) -> None:
        """Close all of them; a later reset makes new ones."""


class Copies(Simulators):
    """Scalar environments, one for each trajectory, which are stepped in turn.

    They are made when they are first needed and used again afterwards. All trajectories of all tasks go on together, so
    that there are as many copies as ``tasks * n``, those of validation included: with a simulator that needs much memory,
    collect fewer.

    Args:
        make: makes an environment. Of a sequence of such functions, the entry ``"family"`` of a task chooses one.
        set_task: is called with an environment and a task, a dict of arrays and numbers, before each reset. What it
            returns goes to the reset as its options. By default it is the environment's own method ``set_task``.
        success: the entry of a step's ``info`` that says whether the trajectory has succeeded, where that is counted.

    >>> copies = Copies(lambda: gymnasium.make("Pendulum-v1"), lambda env, task: setattr(env.unwrapped, "g", task["g"]))
    >>> copies.reset({"g": np.array([9.8, 1.6])}, seeds=[0, 0]).shape
    (2, 3)
    >>> copies.close()
    """

    def __init__(
        self,
        make: Callable[[], AnyEnv] | Sequence[Callable[[], AnyEnv]],
        set_task: Callable[[AnyEnv, Task], Options] | None = None,
        success: str | None = None,
    ) -> None:
        self.success = success
        self._make = [make] if callable(make) else list(make)
        self._set_task = _call_set_task if set_task is None else set_task
        self._made: list[list[AnyEnv]] = [[] for _ in self._make]
        self._rows: list[AnyEnv] = []
        self.families = len(self._make)
        first = self._make[0]()
        self._made[0].append(first)
        self.name, self.observation_space, self.action_space = (
            name_of(first),
            first.observation_space,
            first.action_space,
        )

    def reset(self, tasks: Task, seeds: list[int]) -> NDArray[Any]:
        """Begin a trajectory of each task; return the first observations."""
        families = tasks["family"] if self.families > 1 else np.zeros(len(seeds))
        self._rows = self._take([int(family) for family in families])
        begun = []
        for row, (env, seed) in enumerate(zip(self._rows, seeds, strict=True)):
            options = guard(
                row, "this task cannot be set", self._set_task, env, {key: leaf[row] for key, leaf in tasks.items()}
            )
            begun.append(guard(row, "reset failed", env.reset, seed=seed, options=options)[0])
        self._seen = np.stack(begun)
        return self._seen.copy()

    def step(self, actions: NDArray[Any], running: NDArray[np.bool_]) -> Stepped:
        """Take a step where it runs; what has ended waits."""
        count = len(self._rows)
        rewards, ended, succeeded = np.zeros(count), np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        for row in np.flatnonzero(running).tolist():
            found = guard(row, "the simulator failed", self._rows[row].step, actions[row])
            self._seen[row], rewards[row], terminated, truncated, info = found
            ended[row] = terminated or truncated
            if self.success is not None:
                succeeded[row] = guard(row, "info tells no success", info.__getitem__, self.success)
        return Stepped(self._seen.copy(), rewards, ended, succeeded)

    def close(self) -> None:
        """Close all of them; a later reset makes new ones."""
        for env in (env for made in self._made for env in made):
            with suppress(Exception):  # what has crashed need not close
                env.close()
        self._made, self._rows = [[] for _ in self._make], []

    def _take(self, families: list[int]) -> list[AnyEnv]:
        """Return a copy for each row, made where there are not enough."""
        used, taken = [0] * self.families, list[AnyEnv]()
        for family in families:
            made = self._made[family]
            if used[family] == len(made):
                made.append(self._make[family]())
                self._check_spaces(made[-1])
            taken.append(made[used[family]])
            used[family] += 1
        return taken

    def _check_spaces(self, env: AnyEnv) -> None:
        found = env.observation_space.shape, env.action_space
        if found != (self.observation_space.shape, self.action_space):
            raise ValueError(
                f"{name_of(env)} observes {found[0]} and takes {found[1]}, where {self.name} observes "
                f"{self.observation_space.shape} and takes {self.action_space}: one policy cannot act in both."
            )


def _call_set_task(env: AnyEnv, task: Task) -> Options:
    if not env.has_wrapper_attr("set_task"):
        raise AttributeError("it has no method set_task: pass set_task=, a function that sets a task in it")
    env.get_wrapper_attr("set_task")(task)
    return None


def guard(row: int | None, what: str, call: Callable[..., Any], *args: Any, **told: Any) -> Any:
    """Call a simulator; whatever it raises becomes a ``SimulatorError``."""
    try:
        return call(*args, **told)
    except Exception as error:  # whatever a simulator raises
        raise SimulatorError(what, error, row) from error


def name_of(env: Any) -> str:
    """Return what Gymnasium calls an environment, or its class."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
