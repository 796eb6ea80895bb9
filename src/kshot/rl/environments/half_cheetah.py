"""Half-cheetahs that are told to run in a direction or at a speed only by their reward, all in one call of MuJoCo."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.rl.environments.base import Environment, Tasks, Transition, check_tasks
from kshot.rl.environments.planar import CentreOfMass
from kshot.tasks.keys import uniform

try:
    import gymnasium.envs.mujoco
    import mujoco
    from mujoco.rollout import Rollout
except ImportError as error:
    raise ImportError("the half-cheetah needs MuJoCo: pip install 'kshot[mujoco]'") from error

__all__ = ["HalfCheetahDir", "HalfCheetahVel", "Preset"]

Preset: TypeAlias = Literal["gym", "finn2017"]

_MODEL = Path(gymnasium.envs.mujoco.__file__).parent / "assets" / "half_cheetah.xml"
_STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS  # the time, positions and velocities
_TIMESTEP = 0.01


class _HalfCheetah(Environment):
    """A planar cheetah with six joints to move, the model of rllab and of Gymnasium.

    Every step starts the constraint solver anew, so that a state alone tells what follows, whatever thread simulates it.
    """

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
        frames = {"gym": 5, "finn2017": 1}[preset] if frame_skip is None else frame_skip
        features = (17 if preset == "gym" else 20) + tells_goal
        super().__init__(features, actions=6, horizon=horizon)
        if frames < 1 or threads < 1:
            raise ValueError(f"expected frame_skip >= 1 and threads >= 1; found {frames} and {threads}.")
        self.frame_skip = frames
        self._model = _model()
        self._model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
        self._centre = CentreOfMass(self._model)
        self._data = [mujoco.MjData(self._model) for _ in range(threads)]
        self._pool = Rollout(nthread=threads if threads > 1 else 0)

    def close(self) -> None:
        """Stop its threads."""
        self._pool.close()

    @property
    def stamp(self) -> dict[str, str]:
        """The protocol of these tasks."""
        timing = f"{self.frame_skip} x {_TIMESTEP:g} s a step"
        physics = f"MuJoCo {mujoco.__version__}, {timing}"
        told = {"observation": "state and goal"} if self.tells_goal else {}
        return {"data": self._name, "preset": self.preset, "physics": physics, "horizon": str(self.horizon), **told}

    @property
    @abstractmethod
    def _name(self) -> str: ...

    @abstractmethod
    def _reward(self, tasks: Tasks, velocity: Float[Tensor, "tasks n"]) -> Float[Tensor, "tasks n"]: ...

    def reset(self, tasks: Tasks, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Stand nearly still, somewhat differently each time."""
        size, joints = (check_tasks(self, tasks), n), self._model.nq
        if self.preset == "gym":
            away = torch.rand(*size, joints, generator=generator, dtype=torch.float64) * 0.2 - 0.1
        else:
            away = torch.randn(*size, joints, generator=generator, dtype=torch.float64) * 0.01
        moving = torch.randn(*size, joints, generator=generator, dtype=torch.float64) * 0.1
        start = torch.from_numpy(self._model.qpos0) + away
        state = torch.cat([torch.zeros(*size, 1, dtype=torch.float64), start, moving], -1)
        return state, self._seen(tasks, state)

    def step(
        self, tasks: Tasks, state: Tensor, actions: Float[Tensor, "tasks n actions"], generator: torch.Generator
    ) -> Transition:
        """Simulate all of them; what is paid is velocity as the task asks, less 0.05 times the squared action."""
        del generator  # physics is certain
        bounded = actions.clamp(-1, 1)
        control = bounded.double().flatten(0, 1)[:, None].expand(-1, self.frame_skip, -1)
        rows: NDArray[Any] = state.flatten(0, 1).numpy()
        found, _ = self._pool.rollout(self._model, self._data, rows, np.ascontiguousarray(control.numpy()))
        following = torch.from_numpy(found[:, -1].copy()).view_as(state)
        velocity = self._velocity(state, following).to(actions.dtype)
        rewards = self._reward(tasks, velocity) - 0.05 * bounded.square().sum(-1)
        return Transition(following, self._seen(tasks, following), rewards, torch.zeros_like(rewards, dtype=torch.bool))

    def _velocity(self, state: Tensor, following: Tensor) -> Tensor:
        """Return how fast the root has gone on the whole, or how fast the centre of mass goes at the end."""
        if self.preset == "gym":
            return (following[..., 1] - state[..., 1]) / (self.frame_skip * _TIMESTEP)
        return self._centre(*self._joints(following))[1]

    def _seen(self, tasks: Tasks, state: Tensor) -> Tensor:
        """Return all positions but how far it has come, and all velocities; then centre of mass and goal where told."""
        seen = [state[..., 2:]]
        if self.preset == "finn2017":
            seen.append(self._centre(*self._joints(state))[0])
        if self.tells_goal:
            (goal,) = tasks.values()
            seen.append(goal[:, None, None].expand(*state.shape[:2], 1).to(state))
        return torch.cat(seen, -1).to(torch.get_default_dtype())

    def _joints(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return state[..., 1 : 1 + self._model.nq], state[..., 1 + self._model.nq :]


def _model() -> Any:
    """Return Gymnasium's model, its mass set as newer versions of MuJoCo want it set."""
    xml = _MODEL.read_text(encoding="utf-8")
    model = mujoco.MjModel.from_xml_string(xml.replace(' settotalmass="14"', ""))
    mujoco.mj_setTotalmass(model, 14)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


@final
class HalfCheetahDir(_HalfCheetah):
    r"""Run forward, or backward: :math:`r = \pm v - 0.05 \lVert a \rVert^2`.

    After Chelsea Finn, Pieter Abbeel, Sergey Levine 2017, "Model-agnostic meta-learning for fast adaptation of deep
    networks". There are two tasks, so that those of a test are trained on.

    Args:
        preset: ``"finn2017"`` is the environment of their code: a step of 0.01 s, v the velocity of the centre of mass,
            which is also seen (20 numbers). ``"gym"`` has the observations (17 numbers), the five physical steps in a step
            and the velocity of the root of Gymnasium's ``HalfCheetah-v5``, as most later work has; its returns do not
            compare with theirs.
        horizon: steps of a trajectory.
        frame_skip: physical steps of 0.01 s in a step, where it is not that of the preset.
        threads: that simulate; their number changes nothing else.
        tells_goal: observations end with the direction or the speed, as for the oracle of the paper.

    Raises:
        ValueError: there is no such preset, or one of the numbers is below one.

    >>> import numpy as np
    >>> env, generator = HalfCheetahDir(), torch.Generator()
    >>> tasks = env.draw_tasks(0, np.arange(4))
    >>> state, seen = env.reset(tasks, 3, generator)
    >>> env.step(tasks, state, torch.zeros(4, 3, 6), generator).rewards.shape
    torch.Size([4, 3])
    """

    _name = "half-cheetah-dir"

    @property
    def task_shapes(self) -> dict[str, tuple[int, ...]]:
        """A task is a sign."""
        return {"direction": ()}

    def draw_tasks(self, seed: int, items: NDArray[np.int64]) -> Tasks:
        """Draw directions, 1 or -1, ``(tasks,)``."""
        forward = torch.from_numpy(uniform(seed, 0, items, 1)[:, 0]) < 0.5
        return {"direction": torch.where(forward, 1.0, -1.0).to(torch.get_default_dtype())}

    def _reward(self, tasks: Tasks, velocity: Float[Tensor, "tasks n"]) -> Float[Tensor, "tasks n"]:
        return tasks["direction"][:, None] * velocity


@final
class HalfCheetahVel(_HalfCheetah):
    r"""Run at a speed: :math:`r = -|v - v^*| - 0.05 \lVert a \rVert^2` with :math:`v^* \sim U[0, 2]` metres a second.

    Source, arguments and errors as for ``HalfCheetahDir``.
    """

    _name = "half-cheetah-vel"

    @property
    def task_shapes(self) -> dict[str, tuple[int, ...]]:
        """A task is a speed."""
        return {"velocity": ()}

    def draw_tasks(self, seed: int, items: NDArray[np.int64]) -> Tasks:
        """Draw speeds, ``(tasks,)``."""
        return {"velocity": torch.from_numpy(2 * uniform(seed, 0, items, 1)[:, 0]).to(torch.get_default_dtype())}

    def _reward(self, tasks: Tasks, velocity: Float[Tensor, "tasks n"]) -> Float[Tensor, "tasks n"]:
        return -(velocity - tasks["velocity"][:, None]).abs()
