"""See that pretraining asks of a start how good it is now, and MAML what it may become.

The model is a wave with one weight, its phase, so that losses can be drawn over all its values. Most tasks have phases
near zero, some lie opposite. Pretraining minimises the mean loss at phi, MAML the mean loss one gradient step from phi, on
the same tasks and from the same weight. It takes seconds.

    python examples/maml_potential.py
"""

import math
from functools import partial
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from kshot.core import Batch, Episode
from kshot.learners.gradient import MAML
from kshot.losses import mean_squared_error
from kshot.report.figures import Draw, Palette, save_figure
from lines import FIGURES

PHASES = torch.cat([torch.linspace(-0.8, 0.8, 9), torch.linspace(2.6, 3.4, 4)])
SHOWN = {4: "most tasks", 11: "some tasks"}  # one of each kind is drawn clearly
STARTS = {"pretraining": 0, "MAML": 1}  # inner steps in training: pretraining is MAML without any


class Shift(nn.Module):
    def __init__(self, phi: float = 0.6) -> None:
        super().__init__()
        self.phi = nn.Parameter(torch.tensor(phi))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.phi).sin()


def learner(phi: float, inner: int) -> MAML:
    return MAML(Shift(phi), 1.0, inner, loss=mean_squared_error)


def whole_waves() -> Episode:
    """Return all tasks, each with every point of a period: support and query are the same, and the loss is exact."""
    x = torch.arange(64).expand(len(PHASES), 64)[..., None] * 2 * math.pi / 64
    batch = Batch(x, (x - PHASES[:, None, None]).sin())
    return Episode(batch, batch)


def trained_phi(inner: int, tasks: Episode, steps: int) -> float:
    start = learner(0.6, inner)
    optimizer = torch.optim.SGD(start.parameters(), 0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        start.meta_loss(tasks).backward()
        optimizer.step()
    return start.model.phi.item()


@torch.no_grad()
def losses(phi: Tensor, inner: int, tasks: Episode) -> Tensor:
    """Return the loss of each task after so many steps from each phi, ``(phis, tasks)``."""
    return torch.stack([learner(value, inner).task_losses(tasks) for value in phi.tolist()])


def main(out: Path = FIGURES, steps: int = 300, points: int = 241) -> None:
    tasks, axis = whole_waves(), torch.linspace(-1.6, 4.2, points)
    now, later = (losses(axis, inner, tasks) for inner in (0, 1))
    phis = {name: trained_phi(inner, tasks, steps) for name, inner in STARTS.items()}
    values = {name: [losses(torch.tensor([phi]), n, tasks).mean().item() for n in (0, 1)] for name, phi in phis.items()}
    for name, phi in phis.items():
        best = axis[(now, later)[STARTS[name]].mean(1).argmin()]
        print(f"{name}: phi {phi:.3f} (best on a grid {best:.3f}), mean loss {values[name][0]:.3f}", end="")
        print(f", after one gradient step {values[name][1]:.3f}")

    def each(axes: Axes, palette: Palette) -> None:
        axes.plot(axis, now, color=palette.line, linewidth=1)
        for task, kind in SHOWN.items():
            axes.plot(axis, now[:, task], color=palette.muted)
            axes.text(PHASES[task], -0.06, kind, ha="center", va="top", color=palette.muted)
            for phi, colour in zip(phis.values(), (palette.other, palette.main), strict=True):
                moved = learner(phi, 1).adapt(Batch(*(leaf[task] for leaf in tasks.support)))["phi"].item()
                before, after = ((p, 1 - math.cos(p - PHASES[task])) for p in (phi, moved))
                axes.plot(*before, "o", color=colour, markersize=6)
                axes.annotate("", after, before, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.8})
        axes.set_title("The loss of each task, and one gradient step on two of them")

    def mean(axes: Axes, palette: Palette) -> None:
        axes.plot(axis, now.mean(1), "--", color=palette.muted)
        axes.plot(axis, later.mean(1), color=palette.ink)
        axes.text(2.2, 1.25, "now", ha="right", color=palette.muted)
        axes.text(3.15, 0.5, "after one\ngradient step", ha="center", color=palette.ink)
        sides = ((palette.other, "right", 0.3), (palette.main, "left", -0.3))
        for (name, phi), (colour, side, beside) in zip(phis.items(), sides, strict=True):
            axes.plot([phi] * 2, [1.42, values[name][1]], ":", color=colour, linewidth=1)
            axes.plot([phi] * 2, values[name], "o-", color=colour, markersize=6)
            label = f"{name}\n{values[name][0]:.2f} → {values[name][1]:.2f}"
            axes.text(phi + beside, 1.45, label, ha=side, color=colour)
        axes.set_title("The mean loss of all tasks")

    def drawn(axes: Axes, palette: Palette, draw: Draw) -> None:
        draw(axes, palette)
        axes.set(xlabel="the weight, φ", ylim=(-0.28, 2.08), yticks=(0, 0.5, 1, 1.5, 2))

    save_figure(out, "maml-potential", (9.0, 3.6), [partial(drawn, draw=each), partial(drawn, draw=mean)])


if __name__ == "__main__":
    main()
