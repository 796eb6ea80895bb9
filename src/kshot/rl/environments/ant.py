"""Ants that are told to run in a direction or at a speed only by their reward, simulated by MuJoCo."""

from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.rl.environments.base import Tasks, Transition
from kshot.rl.environments.contact_steps import ContactSteps
from kshot.rl.environments.goals import Direction, Goal, Speed
from kshot.rl.environments.mujoco_batch import MODELS, MujocoEnvironment, Preset, mujoco

__all__ = ["Ant", "AntDir", "AntVel", "Preset"]

_POSITIONS, _STATE = 15, 29  # of a free torso and eight hinges; the same and their velocities
_TORSO = 1


class Ant(MujocoEnvironment):
    """Four legs of two joints on a ball, which falls: an episode ends when the torso is below 0.2 m or above 1 m.

    A state is what was read at it: positions and velocities, then what the preset observes or pays for besides.
    """

    _sizes: ClassVar[dict[Preset, int]] = {"gym": 105, "finn2017": 125}
    _bonus: ClassVar[float] = 0.0  # of each reward in finn2017

    def _load(self) -> Any:
        """Return Gymnasium's model, with what is different in rllab's where the preset asks for it."""
        model = mujoco.MjModel.from_xml_path(str(MODELS / "ant.xml"))
        if self.preset == "finn2017":
            model.opt.timestep = 0.02
            model.geom_solimp[:, :3] = 0.8, 0.8, 0.01
            model.actuator_gear[:, 0] = 30  # rllab's gear is 1 and its control within 30, so the torque is the same
        return model

    def _open(self, threads: int) -> None:
        gym = self.preset == "gym"
        self._steps = ContactSteps(self.model, _read_gym if gym else _read_finn2017, not gym, threads)

    def close(self) -> None:
        """Stop its threads."""
        self._steps.close()

    def reset(self, tasks: Tasks, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Stand nearly still, somewhat differently each time."""
        gym = self.preset == "gym"
        stance = self.model.qpos0 if gym else self.model.numeric_data[:_POSITIONS]
        start = torch.cat(self._starts(tasks, n, generator, torch.from_numpy(stance.copy())), -1)
        if gym:  # Gymnasium has no forces before the first step
            forces = start.new_zeros(*start.shape[:2], 6 * (self.model.nbody - 1))
            state = torch.cat([start, start[..., :1], forces], -1)
        else:
            state = self._simulate(start, start.new_zeros(*start.shape[:2], self.actions), 0)
        return state, self._seen(tasks, state)

    def step(
        self, tasks: Tasks, state: Tensor, actions: Float[Tensor, "tasks n actions"], generator: torch.Generator
    ) -> Transition:
        """Simulate all of them; what is paid is velocity as the task asks, and to be alive, less two costs."""
        del generator  # physics is certain
        bounded = actions.clamp(-1, 1)
        following = self._simulate(state[..., :_STATE], bounded.double(), self.frame_skip)
        healthy = _healthy(following[..., :_STATE])
        rewards = self._rewards(tasks, state, following, bounded, healthy).to(actions.dtype)
        return Transition(following, self._seen(tasks, following), rewards, ~healthy)

    def _simulate(self, states: Tensor, control: Tensor, frames: int) -> Tensor:
        found = self._steps(states.flatten(0, 1).numpy(), control.flatten(0, 1).numpy(), frames)
        return torch.from_numpy(found).view(*states.shape[:2], -1)

    def _rewards(
        self, tasks: Tasks, state: Tensor, following: Tensor, bounded: Tensor, healthy: Bool[Tensor, "tasks n"]
    ) -> Float[Tensor, "tasks n"]:
        effort = bounded.double().square().sum(-1)
        impact = self._forces(following).square().sum(-1)
        if self.preset == "gym":
            velocity = (following[..., _STATE] - state[..., _STATE]) / self._seconds
            return self._worth(tasks, velocity) + healthy.double() - 0.5 * effort - 5e-4 * impact
        paid = self._worth(tasks, following[..., -1]) + self._bonus
        return paid + 0.05 - 5e-3 * effort - 5e-4 * impact

    def _forces(self, state: Tensor) -> Tensor:
        """Return the clipped forces and torques of contacts on each body."""
        forces = state[..., _STATE + 1 :] if self.preset == "gym" else state[..., _STATE:-13]
        return forces.clamp(-1, 1)

    def _seen(self, tasks: Tasks, state: Tensor) -> Tensor:
        if self.preset == "gym":
            return self._told(tasks, [state[..., 2:_STATE], self._forces(state)])
        return self._told(tasks, [state[..., :_STATE], self._forces(state), state[..., -13:-1]])


def _read_gym(data: Any) -> list[NDArray[np.float64]]:
    """Return the state, how far the torso has come, and the forces on all bodies but the world."""
    return [data.qpos, data.qvel, data.xpos[_TORSO, :1], data.cfrc_ext[1:].reshape(-1)]


def _read_finn2017(data: Any) -> list[NDArray[np.float64]]:
    """Return the state, the forces on all bodies, the torso's rotation, the centre of mass and its velocity forward."""
    forces, turned = data.cfrc_ext.reshape(-1), data.xmat[_TORSO]
    return [data.qpos, data.qvel, forces, turned, data.subtree_com[_TORSO], data.subtree_linvel[_TORSO, :1]]


def _healthy(states: Float[Tensor, "tasks n both"]) -> Bool[Tensor, "tasks n"]:
    height = states[..., 2]
    return states.isfinite().all(-1) & (height >= 0.2) & (height <= 1)


@final
class AntDir(Ant):
    r"""Run forward, or backward: :math:`r = \pm v + b - c_a \lVert a \rVert^2 - 5 \cdot 10^{-4} \lVert f \rVert^2`.

    a is the action within 1, f the forces and torques of contacts, each clipped to 1. After Chelsea Finn, Pieter Abbeel,
    Sergey Levine 2017, "Model-agnostic meta-learning for fast adaptation of deep networks". There are two tasks, so that
    those of a test are trained on.

    ``"gym"`` is Gymnasium's ``Ant-v5``, equal to it step by step: five physical steps of 0.01 s, v how far the torso has
    come in a step, b = 1 unless it fell, c_a = 0.5. Observed are positions without x and y (13), velocities (14) and f of
    the 13 bodies (78). Forces and the place of the torso are those of the last evaluation of the integrator, see
    ``ContactSteps``, and f is zero before the first step, both as there.

    ``"finn2017"`` is the environment of their code on a current MuJoCo: one physical step of 0.02 s, v the velocity of the
    centre of mass of all parts, b = 0.05, c_a = 0.005. Observed are all positions (15, with x and y), velocities (14), f
    (84: 6 zeros of the world, then of the 13 bodies), the rotation matrix of the torso (9) and the centre of mass (3), all
    of the state that the step ends in. Their control has a range of 30 and their cost is of the share of it, which is the
    action here; the motors then turn with 30 Nm, and with 150 Nm in Gymnasium's, so returns do not compare.

    Args:
        preset: one of the two.
        horizon: steps of a trajectory, at most.
        frame_skip: physical steps in a step, where it is not that of the preset.
        threads: that simulate; their number changes nothing else.
        tells_goal: observations end with the direction or the speed, as for the oracle of the paper.

    Raises:
        ValueError: there is no such preset, or one of the numbers is below one.

    >>> env, generator = AntDir(), torch.Generator()
    >>> tasks = env.draw_tasks(0, np.arange(4))
    >>> state, seen = env.reset(tasks, 3, generator)
    >>> env.step(tasks, state, torch.zeros(4, 3, 8), generator).observations.shape
    torch.Size([4, 3, 105])
    """

    _name = "ant-dir"
    _goal: Goal = Direction()


@final
class AntVel(Ant):
    r"""Run at a speed: as ``AntDir`` with :math:`-|v - v^*|` in place of :math:`\pm v`, :math:`v^* \sim U[0, 3]` m/s.

    In ``"finn2017"`` 1 is added to each reward, so that it does not pay to fall; in ``"gym"`` being alive pays as much.
    Source, arguments and errors as for ``AntDir``.
    """

    _name = "ant-vel"
    _goal: Goal = Speed(3.0)
    _bonus: ClassVar[float] = 1.0
