"""Half-cheetahs on slopes."""

import copy
import math
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kshot.rl.environments.base import Tasks
from kshot.rl.environments.goals import Goal
from kshot.rl.environments.half_cheetah import HalfCheetah
from kshot.rl.environments.mujoco_batch import Preset
from kshot.tasks.keys import uniform

__all__ = ["HalfCheetahSlope"]

_KEPT = 200  # models of half a megabyte each


@final
class HalfCheetahSlope(HalfCheetah):
    r"""Run up or down a slope of :math:`\varphi` degrees: :math:`r = v - 0.05 \lVert a \rVert^2`, v along the slope.

    The floor stays level and gravity turns, which is the same thing seen from the slope:

    .. math::
        g = -9.81 \, (\sin \varphi, 0, \cos \varphi), \qquad \varphi \sim U[\varphi_\text{min}, \varphi_\text{max}]

    A positive angle is uphill. Heights and velocities are observed in the frame of the slope, so only the motion tells how
    steep it is. Train on gentle slopes and test on steeper ones by making two environments. After the sloped terrain of
    Anusha Nagabandi, Ignasi Clavera, Simin Liu, Ronald S. Fearing, Pieter Abbeel, Sergey Levine, Chelsea Finn 2019,
    "Learning to adapt in dynamic, real-world environments through meta-reinforcement learning", whose slopes change along
    the way; here a task is one angle.

    Args:
        preset: observations, timing and velocity as for ``HalfCheetahDir``.
        horizon: steps of a trajectory.
        frame_skip: physical steps of 0.01 s in a step, where it is not that of the preset.
        threads: that simulate; their number changes nothing else.
        tells_goal: observations end with the angle in degrees.
        slopes: the least and the greatest angle, in degrees.

    Raises:
        ValueError: as for ``HalfCheetahDir``, or the slopes are not in order between -90 and 90 degrees.

    >>> gentle, steep = HalfCheetahSlope(), HalfCheetahSlope(slopes=(15.0, 25.0))
    >>> bool((steep.draw_tasks(0, np.arange(9))["slope"] > gentle.draw_tasks(0, np.arange(9))["slope"]).all())
    True
    """

    _name = "half-cheetah-slope"

    def __init__(
        self,
        preset: Preset = "gym",
        horizon: int = 200,
        frame_skip: int | None = None,
        threads: int = 1,
        tells_goal: bool = False,
        slopes: tuple[float, float] = (-10.0, 10.0),
    ) -> None:
        self._goal, self.slopes = _Slope(*slopes), slopes
        super().__init__(preset, horizon, frame_skip, threads, tells_goal)
        self._tilted: dict[float, Any] = {}

    @property
    def stamp(self) -> dict[str, str]:
        """The protocol of these tasks."""
        return {**super().stamp, "slopes": f"{self.slopes[0]:g} to {self.slopes[1]:g} degrees"}

    def _models(self, tasks: Tasks, n: int) -> Any:
        """Return a list of one model for each trajectory; they are kept, since a task is asked for at every step."""
        angles = tasks["slope"].tolist()
        if len(self._tilted) > _KEPT:
            self._tilted = {angle: model for angle, model in self._tilted.items() if angle in {*angles}}
        for angle in {*angles} - self._tilted.keys():
            self._tilted[angle] = self._tilt(math.radians(angle))
        return [self._tilted[angle] for angle in angles for _ in range(n)]

    def _tilt(self, angle: float) -> Any:
        model = copy.copy(self.model)
        size = float(model.opt.gravity[2])
        model.opt.gravity[:] = size * math.sin(angle), 0, size * math.cos(angle)
        return model


@final
class _Slope(Goal):
    """An angle in degrees, which changes the world and not what is paid for."""

    name = "slope"

    def __init__(self, least: float, greatest: float) -> None:
        if not -90 < least <= greatest < 90:
            raise ValueError(f"slopes must be (least, greatest) degrees within 90; found ({least:g}, {greatest:g}).")
        self._least, self._most = least, greatest

    def draw(self, seed: int, items: NDArray[np.int64]) -> Float[Tensor, " tasks"]:
        """Draw angles."""
        share = torch.from_numpy(uniform(seed, 0, items, 1)[:, 0])
        return (self._least + (self._most - self._least) * share).to(torch.get_default_dtype())

    def reward(self, goal: Float[Tensor, "tasks 1"], velocity: Float[Tensor, "tasks n"]) -> Float[Tensor, "tasks n"]:
        """Return the velocity."""
        del goal  # forward is forward on every slope
        return velocity
