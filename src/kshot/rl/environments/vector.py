"""Other people's Gymnasium environments, as many trajectories of many tasks as policies here are trained on."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from kshot.rl.environments.base import Environment, Tasks, Transition, check_tasks
from kshot.rl.environments.simulators import SimulatorError, Simulators
from kshot.rl.environments.spaces import FlatSpaces

__all__ = ["VectorEnvironment"]

Draw = Callable[[int, NDArray[np.int64]], Mapping[str, Any]]


class VectorEnvironment(Environment):
    r"""A third-party environment whose task can be set, for everything here that takes an environment.

    Tasks :math:`\tau_i` are drawn by a function, set in simulators, and run for n trajectories each, all together:

    .. math::
        s_{i,j}^{t+1} \sim P(\cdot \mid s_{i,j}^t, a_{i,j}^t; \tau_i), \qquad i \le \text{tasks},\; j \le n

    The simulators keep their own state, so that the ``state`` that goes in and comes out here is but a number of the
    episode and one of the step: to go on from any but the newest is an error, and a new ``reset`` ends what ran before.
    A trajectory ends where its simulator terminates or truncates it, and after the horizon; what has ended waits.
    The seed of each trajectory comes from the generator of ``reset``.

    Args:
        simulators: what runs the trajectories.
        draw: returns tasks for ``(seed, items)``, a dict of arrays with a leading axis of items. The task at ``i`` is to
            depend on ``(seed, items[i])`` alone: ``kshot.tasks.keys`` has random numbers that do.
        horizon: steps of a trajectory at most.
        stamp: what results must say of these tasks, beside the name and the horizon.

    Attributes:
        successes: whether the trajectories ever succeeded, ``(tasks, n)`` for each ``reset`` in order, where the
            simulators are told what success is.

    Raises:
        ValueError: observations are not a ``Box``, or actions are neither a ``Box`` nor ``Discrete``; a task depends on
            more than ``(seed, item)``; a state is old; tasks are others than those of ``reset``.
        RuntimeError: a task cannot be set, or a simulator fails; the task and the step are named.
        FloatingPointError: an action, an observation or a reward is not finite; the task and the step are named.

    >>> import gymnasium
    >>> from kshot.rl.environments.simulators import Copies
    >>> from kshot.tasks.keys import uniform
    >>> env = VectorEnvironment(
    ...     Copies(lambda: gymnasium.make("Pendulum-v1"), lambda env, task: setattr(env.unwrapped, "g", task["g"])),
    ...     draw=lambda seed, items: {"g": 5 + 10 * uniform(seed, 0, items, 1)[:, 0]},
    ...     horizon=200,
    ... )
    >>> tasks, generator = env.draw_tasks(0, np.arange(3)), torch.Generator()
    >>> state, observations = env.reset(tasks, 2, generator)
    >>> env.step(tasks, state, torch.zeros(3, 2, 1), generator).rewards.shape
    torch.Size([3, 2])
    >>> env.close()
    """

    def __init__(
        self, simulators: Simulators, draw: Draw, horizon: int, stamp: Mapping[str, str] | None = None
    ) -> None:
        self._spaces = FlatSpaces(simulators.name, simulators.observation_space, simulators.action_space)
        super().__init__(self._spaces.features, self._spaces.actions, horizon, self._spaces.discrete)
        self._simulators, self._draw = simulators, draw
        self._stamp = {"data": simulators.name, "horizon": str(horizon), **(stamp or {})}
        self._shapes = self._drawn_shapes()
        if simulators.families > 1 and self._shapes.get("family") != ():
            raise ValueError(f"there are {simulators.families} families: draw must return 'family', a number a task.")
        self._episode, self._step = 0, -1  # no step: none can be taken before a reset
        self.successes: list[Bool[Tensor, "tasks n"]] = []

    @property
    def stamp(self) -> dict[str, str]:
        """The protocol of these tasks."""
        return dict(self._stamp)

    @property
    def task_shapes(self) -> dict[str, tuple[int, ...]]:
        """What the function that draws tasks returned."""
        return self._shapes

    @property
    def counts_success(self) -> bool:
        """Whether the simulators are told what success is."""
        return self._simulators.success is not None

    def draw_tasks(self, seed: int, items: NDArray[np.int64]) -> Tasks:
        """Draw tasks by that function."""
        drawn = {name: torch.as_tensor(leaf) for name, leaf in self._draw(seed, items).items()}
        dtype = torch.get_default_dtype()
        return {name: leaf.to(dtype) if leaf.is_floating_point() else leaf for name, leaf in drawn.items()}

    def reset(
        self, tasks: Tasks, n: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "tasks n 2"], Float[Tensor, "tasks n features"]]:
        """Set the tasks and begin ``n`` trajectories of each, in place of those before."""
        self._tasks, self._size = tasks, (check_tasks(self, tasks), n)
        self._episode, self._step = self._episode + 1, -1
        rows = {name: leaf.repeat_interleave(n, 0).numpy() for name, leaf in tasks.items()}
        seeds = torch.randint(2**31 - 1, self._size, generator=generator).flatten().tolist()
        try:
            seen = self._simulators.reset(rows, seeds)
        except SimulatorError as error:
            raise self._failure(error) from error
        self._step, self._running = 0, np.ones(len(seeds), np.bool_)
        if self.counts_success:
            self.successes.append(torch.zeros(self._size, dtype=torch.bool))
        return self._state(), self._finite("observation", self._spaces.observe(seen))

    def step(
        self, tasks: Tasks, state: Tensor, actions: Float[Tensor, "tasks n actions"], generator: torch.Generator
    ) -> Transition:
        """Take one step of every trajectory that has not ended."""
        del generator  # simulators have generators of their own, seeded by reset
        self._check_newest(tasks, state)
        rows = actions.flatten(0, 1)
        self._finite("action", rows)
        try:
            found = self._simulators.step(self._spaces.act(rows), self._running)
        except SimulatorError as error:
            raise self._failure(error) from error
        seen = self._finite("observation", self._spaces.observe(found.observations))
        rewards = self._finite("reward", torch.from_numpy(found.rewards).to(actions))
        self._running, self._step = self._running & ~found.ended, self._step + 1
        if self.counts_success and self.successes:
            self.successes[-1] |= torch.from_numpy(found.succeeded).view(self._size)
        return Transition(self._state(), seen, rewards, torch.from_numpy(found.ended).view(self._size))

    def close(self) -> None:
        """Close the simulators; a later reset makes new ones."""
        self._step = -1
        self._simulators.close()

    def _drawn_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a task, refusing a draw whose tasks depend on what else is drawn."""
        two, alone = self.draw_tasks(0, np.arange(2)), self.draw_tasks(0, np.arange(1, 2))
        for name, leaf in two.items():
            if leaf.ndim == 0 or len(leaf) != 2 or not torch.equal(leaf[1:], alone[name]):
                raise ValueError(f"draw must return {name!r} as a row for each item, by (seed, item) alone.")
        return {name: tuple(leaf.shape[1:]) for name, leaf in two.items()}

    def _state(self) -> Tensor:
        return torch.tensor([self._episode, self._step]).expand(*self._size, 2)

    def _check_newest(self, tasks: Tasks, state: Tensor) -> None:
        """Refuse to go on from where the simulators do not stand."""
        name = self._simulators.name
        if self._step < 0:
            raise ValueError(f"{name} has not begun, has failed or is closed: call reset first.")
        (episode, step), size = state.flatten(0, 1)[0].tolist(), tuple(state.shape[:2])
        if (episode, step, size) != (self._episode, self._step, self._size) or not (state == state[:1, :1]).all():
            raise ValueError(
                f"the state is of step {step} of episode {episode}, but the simulators of {name} stand at step "
                f"{self._step} of episode {self._episode}. They keep their own state: go on from the newest, or reset."
            )
        if tasks is not self._tasks and not all(torch.equal(tasks[key], leaf) for key, leaf in self._tasks.items()):
            raise ValueError(f"these are not the tasks that reset has set in the simulators of {name}.")

    def _finite(self, kind: str, rows: Tensor) -> Tensor:
        """Return rows as ``(tasks, n, ...)``, refusing numbers that are not finite where a trajectory still runs."""
        wrong = ~rows.isfinite().view(len(rows), -1).all(-1).numpy() & self._running
        if wrong.any():
            row = int(wrong.argmax())
            hint = " The policy may have diverged: try a smaller inner step size." if kind == "action" else ""
            message = (
                f"{self._simulators.name}: the {kind} is not finite at {self._when()} of {self._place(row)}.{hint}"
            )
            self._step = -1
            raise FloatingPointError(message)
        return rows.view(*self._size, *rows.shape[1:])

    def _failure(self, error: SimulatorError) -> RuntimeError:
        """Close what may be broken, and say where it broke."""
        where = self._when() if error.row is None else f"{self._when()} of {self._place(error.row)}"
        self.close()
        return RuntimeError(f"{self._simulators.name}, {where}: {error}")

    def _place(self, row: int) -> str:
        task, trajectory = divmod(row, self._size[1])
        values = {name: leaf[task].tolist() for name, leaf in self._tasks.items()}
        return f"task {task} {values}, trajectory {trajectory}"

    def _when(self) -> str:
        return "reset" if self._step < 0 else f"step {self._step}"
