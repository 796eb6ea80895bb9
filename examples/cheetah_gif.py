"""See a half-cheetah learn which way to run: an animation of both directions, before adaptation and after one step.

One meta-trained policy does not know which direction is paid for. It runs twenty times for two seconds, takes one
policy-gradient step, and runs again. No display and no graphics card is needed: its parts are drawn as lines.

    kshot rl train promp --env half-cheetah-dir --preset finn2017 --hidden 100 100 --minutes 60 --out runs/cheetah
    python examples/cheetah_gif.py runs/cheetah/best.safetensors
"""

import sys
from pathlib import Path

import matplotlib
import mujoco
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from kshot.checkpoint import load_checkpoint
from kshot.rl.adaptation import PolicyGradientSteps
from kshot.rl.environments.half_cheetah import HalfCheetahDir
from kshot.rl.evaluation import adaptation_trajectories
from kshot.rl.policies import policy_for
from lines import FIGURES

EVERY = 4  # steps of 0.01 s from one picture to the next
COLOURS = {1.0: "#2f5fc4", -1.0: "#b0580c"}


def segments(model: mujoco.MjModel, seen: Tensor) -> list[np.ndarray]:
    """Return both ends of each capsule of the body, ``(parts, 2, 2)``, for each observation, in metres."""
    data, found = mujoco.MjData(model), []
    parts = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE)
    for row in seen.double().numpy():
        data.qpos[:] = 0, *row[: model.nq - 1]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        shift = row[-3] - data.subtree_com[1, 0]  # the place of the root is not seen, that of the centre of mass is
        along = data.geom_xmat[parts].reshape(-1, 3, 3)[:, :, 2] * model.geom_size[parts, 1:2]
        ends = np.stack([data.geom_xpos[parts] - along, data.geom_xpos[parts] + along], 1)[..., [0, 2]]
        found.append(np.add(ends, (shift, 0)))
    return found


def main(weights: Path | None = None, out: Path = FIGURES, horizon: int = 200) -> None:
    """Animate the policy of a checkpoint, or an untrained one."""
    environment = HalfCheetahDir("finn2017", horizon)
    inner = PolicyGradientSteps(policy_for(environment, (100, 100)), lr=0.1)
    if weights is not None:
        inner.policy.load_state_dict(load_checkpoint(weights)["learner"])
    before, after = adaptation_trajectories(inner, environment, tasks=8, rates=(0.1,), trajectories=20)
    directions = environment.draw_tasks(2, np.arange(8))["direction"]
    figure = Figure((8.0, 5.2), dpi=70, layout="constrained")
    rows: list[tuple[Axes, list[np.ndarray], list[matplotlib.lines.Line2D]]] = []
    for row, (stage, found) in enumerate((("before", before), ("after one step", after)) * 2):
        sign = (1.0, -1.0)[row // 2]
        task = int((directions == sign).nonzero()[0])
        typical = int(found.returns()[task].argsort()[found.returns().shape[1] // 2])
        body = segments(environment.model, found.observations[task, ::EVERY, typical])
        axes = figure.add_subplot(4, 1, row + 1)
        way = "forward →" if sign > 0 else "← backward"
        axes.set_title(f"{way}, {stage}: mean return {found.returns()[task].mean():.0f}", loc="left", fontsize=10)
        axes.set(xlim=(-5, 5), ylim=(-0.05, 1.1), aspect="equal", yticks=[])
        axes.axhline(0, color="#5c6575", linewidth=1)
        look = {"color": COLOURS[sign], "linewidth": 4, "solid_capstyle": "round"}
        rows.append((axes, body, [axes.plot([], [], **look)[0] for _ in body[0]]))

    def draw(frame: int) -> None:
        for _, body, parts in rows:
            for part, ends in zip(parts, body[frame], strict=True):
                part.set_data(*ends.T)

    frames = len(rows[0][1])
    FuncAnimation(figure, draw, frames=frames).save(out / "cheetah.gif", PillowWriter(fps=100 // EVERY))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
