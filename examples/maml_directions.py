"""See where pretraining, first-order MAML, Reptile and MAML move a start, on one task and in one plane.

Two inner steps give gradients g1, at the start, and g2, after one step. Pretraining moves along -g1, first-order MAML along
-g2, Reptile along -(g1 + g2), and MAML along -g2 as second derivatives turn it. Once for a model of two weights, where the
plane is all there is, and once for a meta-trained net. The directions are meta-gradients as the library computes them.

    python examples/maml_directions.py
"""

from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from kshot.core import Batch, Episode, Learner
from kshot.evaluation import Evaluation
from kshot.learners.gradient import MAML, Reptile
from kshot.losses import mean_squared_error
from kshot.nets.mlp import MLP
from kshot.report.figures import Palette, save_figure
from kshot.tasks.sinusoid import Sinusoids
from kshot.training import train
from lines import FIGURES


class Wave(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([1.0, 2.5]))  # amplitude and phase

    def forward(self, x: Tensor) -> Tensor:
        return self.weights[0] * (x - self.weights[1]).sin()


def learners(net: nn.Module, lr: float) -> dict[str, Learner]:
    maml = partial(MAML, net, lr, loss=mean_squared_error)
    reptile = Reptile(maml(steps=2, differentiate="first_order"), steps=2)
    first_order = maml(steps=1, differentiate="first_order")
    return {"pretraining": maml(steps=0), "Reptile": reptile, "MAML": maml(steps=1), "first-order MAML": first_order}


def whole(task: Episode) -> Episode:
    """Let support and query both be all points of the task: then the methods differ, and nothing else."""
    both = Batch(*(torch.cat(pair)[None] for pair in zip(*task, strict=True)))
    return Episode(both, both)


def directions(net: nn.Module, lr: float, task: Episode) -> dict[str, Tensor]:
    """Return where each method moves the start, as vectors of length one."""
    moves = {}
    for name, learner in learners(net, lr).items():
        learner.zero_grad()
        learner.meta_loss(task).backward()
        moves[name] = -normalize(parameters_to_vector([p.grad for p in net.parameters()]), dim=0)
    return moves


def two_steps(net: nn.Module, lr: float, support: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the start, the two steps from it ``(2, weights)``, and axes of their plane, the first step's first."""
    places = [MAML(net, lr, n, loss=mean_squared_error).adapt(support).values() for n in range(3)]
    steps = torch.stack([parameters_to_vector(b) - parameters_to_vector(a) for a, b in pairwise(places)])
    right = normalize(steps[0], dim=0)
    return (
        parameters_to_vector(places[0]),
        steps,
        torch.stack([right, normalize(steps[1] - steps[1] @ right * right, dim=0)]),
    )


@torch.no_grad()
def landscape(net: nn.Module, task: Batch, start: Tensor, places: Tensor) -> Tensor:
    """Return the loss at ``places`` of ``(height, width, weights)``."""
    losses = []
    for place in places.flatten(0, 1):
        vector_to_parameters(place, net.parameters())
        losses.append(mean_squared_error(net(task.x), task.y))
    vector_to_parameters(start, net.parameters())
    return torch.stack(losses).view(places.shape[:2])


def draw(axes: Axes, palette: Palette, net: nn.Module, lr: float, task: Episode, title: str) -> None:
    support = Batch(task.support.x[0], task.support.y[0])
    start, steps, plane = (value.detach() for value in two_steps(net, lr, support))
    path = torch.cat([torch.zeros(1, 2), (steps @ plane.T).cumsum(0)])
    reach = 1.5 * path[1, 0]  # the arrows are of one length: how far a method goes is for its outer step size to say
    across, up = torch.linspace(-0.8, 1.8, 50) * reach, torch.linspace(-0.45, 1.3, 40) * reach
    grid = torch.stack(torch.meshgrid(across, up, indexing="xy"), -1)
    loss = landscape(net, support, start, start + grid @ plane)
    axes.contour(across, up, loss, levels=14, colors=palette.line, linewidths=0.8)
    axes.plot(*path.T, "o:", color=palette.ink)
    for name, ends, beside in zip(("-g1", "-g2"), pairwise(path), ((-4, -13), (6, -4)), strict=True):
        at = (sum(ends) / 2).tolist()
        axes.annotate(name, at, xytext=beside, textcoords="offset points", color=palette.ink)
    colours = (palette.other, palette.muted, palette.main, palette.ink)
    for (name, move), colour in zip(directions(net, lr, task).items(), colours, strict=True):
        tip = (plane @ move * reach).tolist()
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", tip, (0, 0), arrowprops=arrow)
        axes.annotate(name, tip, xytext=(5, 0), textcoords="offset points", color=colour, va="center")
    axes.set(title=title, xticks=[], yticks=[], aspect="equal")


def main(out: Path = FIGURES, steps: int = 1500, test_tasks: int = 600) -> None:
    torch.manual_seed(0)
    x = torch.linspace(-5, 5, 41)[:, None]
    wave = Batch(x, 3 * (x - 1.0).sin())
    net = MLP(1, 40, 40, 1)
    tasks = [whole(task) for task in Sinusoids(shots=10, queries=10, seed=2, length=test_tasks)]
    for stage in ("random weights", "meta-trained"):
        if stage == "meta-trained":
            maml = MAML(net, 0.01, 1, "reverse", loss=mean_squared_error)
            train(maml, Sinusoids(shots=10, queries=10), steps=steps, tasks_per_step=25)
        moves = [directions(net, 0.01, task) for task in tasks]
        cosines = {name: torch.stack([move[name] @ move["MAML"] for move in moves]) for name in moves[0]}
        for name in ("pretraining", "Reptile", "first-order MAML"):
            cosine = Evaluation("cosine", True, cosines[name]).short()
            print(f"{stage}: cosine of {name} with MAML {cosine}, 95 % interval over {test_tasks} waves")
    # The wave on which the directions lie as they do on average.
    off = torch.stack([(values - values.mean()).abs() for values in cosines.values()]).amax(0)
    small = partial(draw, net=Wave(), lr=0.3, task=whole(Episode(wave, wave)), title="A model of two weights")
    large = partial(draw, net=net, lr=0.01, task=tasks[int(off.argmin())], title="A net, in the plane of both steps")
    save_figure(out, "maml-directions", (9.0, 3.7), [small, large])


if __name__ == "__main__":
    main()
