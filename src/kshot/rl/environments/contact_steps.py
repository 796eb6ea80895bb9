"""Steps of MuJoCo that also tell what is found only after them, as the forces of contacts, for many states at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kshot.rl.environments.mujoco_batch import mujoco

__all__ = ["ContactSteps", "Reading"]

Reading: TypeAlias = Callable[[Any], list[NDArray[np.float64]]]  # of an mjData: views into it


class ContactSteps:
    r"""Simulate each state for a while under one control, then read it.

    ``mujoco.rollout`` returns states and sensors, and no sensor has ``cfrc_ext``, the forces and torques of contacts on
    each body. ``mj_rnePostConstraint`` sums them from the contacts of what was evaluated last. That is not the state
    :math:`x'` which a step ends in: the integrator of the ant, RK4, evaluates four, the fourth of which is

    .. math::
        x_4 = x + h \, k_3, \qquad x' = x + \frac{h}{6} (k_1 + 2 k_2 + 2 k_3 + k_4)

    Gymnasium reads forces and the place of bodies there. So each thread steps one ``MjData`` from one state after another
    with ``mj_step``, and reads it before the next.

    Args:
        model: of MuJoCo.
        reading: returns the views that are read, positions and velocities first.
        evaluates: x' is evaluated before it is read, with the control of the step, so that all of it is of x'.
        threads: that simulate.

    >>> from kshot.rl.environments.mujoco_batch import MODELS
    >>> model = mujoco.MjModel.from_xml_path(str(MODELS / "ant.xml"))
    >>> steps = ContactSteps(model, lambda data: [data.qpos, data.qvel, data.cfrc_ext.reshape(-1)], True, threads=1)
    >>> standing = np.concatenate([model.qpos0, np.zeros(model.nv)])[None]
    >>> steps(standing, np.zeros((1, model.nu)), frames=5).shape
    (1, 113)
    """

    def __init__(self, model: Any, reading: Reading, evaluates: bool, threads: int) -> None:
        self._model, self._evaluates = model, evaluates
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._views = [reading(data) for data in self._data]
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def close(self) -> None:
        """Stop its threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def __call__(self, states: NDArray[np.float64], control: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
        """Return what is read of each state after some physical steps, ``(m, read)``.

        Args:
            states: positions and velocities, ``(m, nq + nv)``.
            control: of each, ``(m, nu)``.
            frames: how many physical steps; after none, a state is only evaluated and read.
        """
        found = np.empty((len(states), sum(view.size for view in self._views[0])))
        parts = [np.array_split(rows, len(self._data)) for rows in (states, control, found)]
        run = map if self._pool is None else self._pool.map
        list(run(self._simulate, range(len(self._data)), *parts, [frames] * len(self._data)))
        return found

    def _simulate(
        self,
        thread: int,
        states: NDArray[np.float64],
        control: NDArray[np.float64],
        found: NDArray[np.float64],
        frames: int,
    ) -> None:
        """Fill the rows of ``found``."""
        model, data, views = self._model, self._data[thread], self._views[thread]
        positions, velocities, controls = data.qpos, data.qvel, data.ctrl
        for row, state in enumerate(states):
            positions[:], velocities[:] = state[: model.nq], state[model.nq :]
            controls[:] = control[row]
            if frames:
                mujoco.mj_step(model, data, frames)
            if self._evaluates:
                mujoco.mj_forward(model, data)
                mujoco.mj_subtreeVel(model, data)
            mujoco.mj_rnePostConstraint(model, data)
            np.concatenate(views, out=found[row])
