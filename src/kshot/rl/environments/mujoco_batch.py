"""What runners simulated by MuJoCo share: presets, timing, goals and where they start, for many trajectories at once."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.rl.environments.base import Environment, Tasks, check_tasks
from kshot.rl.environments.goals import Goal

try:
    import gymnasium.envs.mujoco
    import mujoco
    from mujoco.rollout import Rollout
except ImportError as error:
    raise ImportError("cheetahs and ants need MuJoCo: pip install 'kshot[mujoco]'") from error

__all__ = ["MODELS", "MujocoEnvironment", "Preset", "Rollout", "mujoco"]

Preset: TypeAlias = Literal["gym", "finn2017"]

MODELS = Path(gymnasium.envs.mujoco.__file__).parent / "assets"


class MujocoEnvironment(Environment):
    """Runners of one model that differ in what their reward asks for.

    Every step starts the constraint solver anew, so that a state alone tells what follows, whatever thread simulates it.
    A concrete class says what it is called, what it asks for, and its numbers of each preset; it loads the model and steps.

    Args:
        preset: whose observations, timing and reward.
        horizon: steps of a trajectory.
        frame_skip: physical steps in a step, where it is not that of the preset.
        threads: that simulate; their number changes nothing else.
        tells_goal: observations end with the goal, as for an oracle.

    Raises:
        ValueError: there is no such preset, or one of the numbers is below one.
    """

    _name: ClassVar[str]
    _sizes: ClassVar[dict[Preset, int]]  # of an observation without its goal
    _goal: Goal

    def __init__(
        self,
        preset: Preset = "gym",
        horizon: int = 200,
        frame_skip: int | None = None,
        threads: int = 1,
        tells_goal: bool = False,
    ) -> None:
        if preset not in ("gym", "finn2017"):
            raise ValueError(f"preset must be 'gym' or 'finn2017'; found {preset!r}.")
        self.preset, self.tells_goal = preset, tells_goal
        self.model = self._load()
        super().__init__(self._sizes[preset] + tells_goal, actions=self.model.nu, horizon=horizon)
        self.frame_skip = {"gym": 5, "finn2017": 1}[preset] if frame_skip is None else frame_skip
        if self.frame_skip < 1 or threads < 1:
            raise ValueError(f"expected frame_skip >= 1 and threads >= 1; found {self.frame_skip} and {threads}.")
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
        self._open(threads)

    @abstractmethod
    def _load(self) -> Any:
        """Return the model of the preset."""

    @abstractmethod
    def _open(self, threads: int) -> None:
        """Prepare to simulate in that many threads."""

    @abstractmethod
    def close(self) -> None:
        """Stop its threads."""

    @property
    def stamp(self) -> dict[str, str]:
        """The protocol of these tasks."""
        timing = f"{self.frame_skip} x {self.model.opt.timestep:g} s a step"
        physics = f"MuJoCo {mujoco.__version__}, {timing}"
        told = {"observation": "state and goal"} if self.tells_goal else {}
        return {"data": self._name, "preset": self.preset, "physics": physics, "horizon": str(self.horizon), **told}

    @property
    def task_shapes(self) -> dict[str, tuple[int, ...]]:
        """A task is a number."""
        return {self._goal.name: ()}

    def draw_tasks(self, seed: int, items: NDArray[np.int64]) -> Tasks:
        """Draw goals, ``(tasks,)``."""
        return {self._goal.name: self._goal.draw(seed, items)}

    @property
    def _seconds(self) -> float:
        return float(self.frame_skip * self.model.opt.timestep)

    def _starts(
        self, tasks: Tasks, n: int, generator: torch.Generator, stance: Float[Tensor, " joints"]
    ) -> tuple[Float[Tensor, "tasks n joints"], Float[Tensor, "tasks n speeds"]]:
        """Return positions near a stance and small velocities, different ones each time."""
        size, joints, speeds = (check_tasks(self, tasks), n), self.model.nq, self.model.nv
        if self.preset == "gym":
            away = torch.rand(*size, joints, generator=generator, dtype=torch.float64) * 0.2 - 0.1
        else:
            away = torch.randn(*size, joints, generator=generator, dtype=torch.float64) * 0.01
        return stance + away, torch.randn(*size, speeds, generator=generator, dtype=torch.float64) * 0.1

    def _worth(self, tasks: Tasks, velocity: Float[Tensor, "tasks n"]) -> Float[Tensor, "tasks n"]:
        """Return what the task pays for a velocity."""
        return self._goal.reward(tasks[self._goal.name][:, None].to(velocity), velocity)

    def _told(self, tasks: Tasks, seen: list[Tensor]) -> Float[Tensor, "tasks n features"]:
        """Return an observation of these parts, with the goal where it is told."""
        if self.tells_goal:
            goal = tasks[self._goal.name][:, None, None]
            seen = [*seen, goal.expand(*seen[0].shape[:2], 1).to(seen[0])]
        return torch.cat(seen, -1).to(torch.get_default_dtype())
