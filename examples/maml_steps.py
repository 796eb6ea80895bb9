"""Train for one gradient step and test with many.

MAML is trained so that one gradient step from its start is good. Does it go on to gain from further steps, as after a good
start it should, or does it fall apart where it was never trained? And what does a net gain that was pretrained on all waves
together? After figure 3 of Finn, Abbeel, Levine 2017, with fewer steps of training; it takes a few minutes.

    python examples/maml_steps.py
"""

from pathlib import Path

import torch
from matplotlib.axes import Axes

from kshot.evaluation import compare, evaluate
from kshot.learners.gradient import MAML
from kshot.losses import mean_squared_error
from kshot.nets.mlp import MLP
from kshot.progress import show_progress
from kshot.report.figures import Palette, save_figure
from kshot.tasks.sinusoid import KnownSinusoids, Sinusoids
from kshot.training import train
from lines import FIGURES, lines

RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)  # of fine-tuning
COUNTS = range(11)


def maml(net: torch.nn.Module, steps: int, lr: float = 0.01) -> MAML:
    return MAML(net, lr, steps, differentiate="reverse", loss=mean_squared_error)


def trained(name: str, inner: int, steps: int, source: type[Sinusoids] = Sinusoids) -> MLP:
    """Meta-train a net for so many inner steps; without any this is pretraining, one net for all waves."""
    torch.manual_seed(0)
    net = MLP(3 if source is KnownSinusoids else 1, 40, 40, 1)
    tasks, validation = source(shots=10, queries=10), source(shots=10, queries=50, seed=1, length=500)
    with show_progress(name) as watch:
        train(maml(net, inner), tasks, steps=steps, tasks_per_step=25, validation=validation, every=500, watch=watch)
    return net


def best_rate(net: MLP, steps: int) -> float:
    """Choose the step size of fine-tuning by so many steps, on validation waves: the net was trained for none."""
    choice = Sinusoids(shots=5, queries=50, seed=1, length=500)
    return min(RATES, key=lambda lr: evaluate(maml(net, steps, lr), choice, 100).mean)


def main(out: Path = FIGURES, steps: int = 10_000, test_tasks: int = 1000) -> None:
    nets = {f"MAML, trained with {n} step{'s' * (n > 1)}": trained(f"{n} inner", n, steps) for n in (1, 5)}
    nets["pretrained"] = trained("pretrained", 0, steps)
    test = Sinusoids(shots=5, queries=100, seed=2, length=test_tasks)
    results = {}
    for name, net in nets.items():
        rates = [best_rate(net, count) if name == "pretrained" else 0.01 for count in COUNTS]
        results[name] = [evaluate(maml(net, *pair), test, 100) for pair in zip(COUNTS, rates, strict=True)]
        shown = ", ".join(f"{count}: {results[name][count].short()}" for count in (0, 1, 2, 5, 10))
        print(f"{name}, MSE after so many steps: {shown}; {test_tasks} unseen waves; step sizes {sorted(set(rates))}")
    one, five, pretrained = results.values()
    for name, other in (("pretrained", pretrained), ("trained with 5 steps", five)):
        for count in (0, 1, 10):
            print(f"MAML, trained with 1 step, less {name}, after {count}: {compare(one[count], other[count])}")

    def draw(axes: Axes, palette: Palette) -> None:
        lines(axes, COUNTS, results, [(palette.main, 5), (palette.muted, -5), (palette.other, 0)])
        axes.set_title(f"Mean squared error on {test_tasks:,} unseen waves, 5 points each")
        axes.set(xlabel="gradient steps at test time", xticks=COUNTS, ylim=(0, None))

    save_figure(out, "maml-steps", (7.2, 3.6), [draw])


if __name__ == "__main__":
    main()
