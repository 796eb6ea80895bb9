"""Half-cheetahs that are told to run in a direction or at a speed only by their reward, all in one call of MuJoCo."""

from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.rl.environments.base import Tasks, Transition
from kshot.rl.environments.goals import Direction, Goal, Speed
from kshot.rl.environments.mujoco_batch import MODELS, MujocoEnvironment, Preset, Rollout, mujoco
from kshot.rl.environments.planar import CentreOfMass

__all__ = ["HalfCheetah", "HalfCheetahDir", "HalfCheetahVel", "Preset"]


class HalfCheetah(MujocoEnvironment):
    """A planar cheetah with six joints to move, the model of rllab and of Gymnasium."""

    _sizes: ClassVar[dict[Preset, int]] = {"gym": 17, "finn2017": 20}

    def _load(self) -> Any:
        """Return Gymnasium's model, its mass set as newer versions of MuJoCo want it set."""
        xml = (MODELS / "half_cheetah.xml").read_text(encoding="utf-8")
        model = mujoco.MjModel.from_xml_string(xml.replace(' settotalmass="14"', ""))
        mujoco.mj_setTotalmass(model, 14)
        mujoco.mj_setConst(model, mujoco.MjData(model))
        return model

    def _open(self, threads: int) -> None:
        self._centre = CentreOfMass(self.model)
        self._data = [mujoco.MjData(self.model) for _ in range(threads)]
        self._pool = Rollout(nthread=threads if threads > 1 else 0)

    def close(self) -> None:
        """Stop its threads."""
        self._pool.close()

    def reset(self, tasks: Tasks, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Stand nearly still, somewhat differently each time."""
        start, moving = self._starts(tasks, n, generator, torch.from_numpy(self.model.qpos0))
        state = torch.cat([torch.zeros_like(start[..., :1]), start, moving], -1)  # MuJoCo's: the time comes first
        return state, self._seen(tasks, state)

    def step(
        self, tasks: Tasks, state: Tensor, actions: Float[Tensor, "tasks n actions"], generator: torch.Generator
    ) -> Transition:
        """Simulate all of them; what is paid is velocity as the task asks, less 0.05 times the squared action."""
        del generator  # physics is certain
        bounded = actions.clamp(-1, 1)
        control = bounded.double().flatten(0, 1)[:, None].expand(-1, self.frame_skip, -1)
        rows: NDArray[Any] = state.flatten(0, 1).numpy()
        models = self._models(tasks, state.shape[1])
        found, _ = self._pool.rollout(models, self._data, rows, np.ascontiguousarray(control.numpy()))
        following = torch.from_numpy(found[:, -1].copy()).view_as(state)
        velocity = self._velocity(state, following).to(actions.dtype)
        rewards = self._worth(tasks, velocity) - 0.05 * bounded.square().sum(-1)
        return Transition(following, self._seen(tasks, following), rewards, torch.zeros_like(rewards, dtype=torch.bool))

    def _models(self, tasks: Tasks, n: int) -> Any:
        """Return the model of all trajectories, or a list of one for each."""
        del tasks, n  # the body and its world are the same in all of them
        return self.model

    def _velocity(self, state: Tensor, following: Tensor) -> Tensor:
        """Return how fast the root has gone on the whole, or how fast the centre of mass goes at the end."""
        if self.preset == "gym":
            return (following[..., 1] - state[..., 1]) / self._seconds
        return self._centre(*self._joints(following))[1]

    def _seen(self, tasks: Tasks, state: Tensor) -> Tensor:
        """Return all positions but how far it has come, and all velocities; then centre of mass and goal where told."""
        seen = [state[..., 2:]]
        if self.preset == "finn2017":
            seen.append(self._centre(*self._joints(state))[0])
        return self._told(tasks, seen)

    def _joints(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return state[..., 1 : 1 + self.model.nq], state[..., 1 + self.model.nq :]


@final
class HalfCheetahDir(HalfCheetah):
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
    _goal: Goal = Direction()


@final
class HalfCheetahVel(HalfCheetah):
    r"""Run at a speed: :math:`r = -|v - v^*| - 0.05 \lVert a \rVert^2` with :math:`v^* \sim U[0, 2]` metres a second.

    Source, arguments and errors as for ``HalfCheetahDir``.
    """

    _name = "half-cheetah-vel"
    _goal: Goal = Speed(2.0)
