"""See accuracy rise with gradient steps on handwritten characters: MAML beside pretraining and random weights.

Three starts of one net take gradient steps on one example of each of five unseen characters: MAML's, trained so that one
step is good; a net pretrained to tell all training characters apart, which then gets a new last layer; and random weights.
The first two see equally many pictures in training; the last two take the step sizes that validation tasks prefer, for each
number of steps. Training is short, so this is not the best that they can do. Where Omniglot cannot be had, the characters
are invented glyphs. It takes ten minutes or so.

    python examples/maml_omniglot.py
"""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import nn

from kshot import Episodes, LabelledData
from kshot.allocator import keep_freed_memory
from kshot.evaluation import compare, evaluate
from kshot.learners.gradient import MAML
from kshot.nets.conv import Conv4
from kshot.nets.norm import BatchStatisticsNorm
from kshot.progress import show_progress
from kshot.report.figures import Palette, save_figure
from kshot.tasks.cache import DataUnavailable
from kshot.tasks.glyphs import glyphs
from kshot.tasks.labelled import Splits
from kshot.tasks.omniglot import omniglot
from kshot.training import train
from lines import FIGURES, lines

WAYS, TASKS = 5, 16
COUNTS = (0, 1, 2, 3, 5, 10)
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0)
CHOICE = 200  # validation tasks that choose the weights; half of them choose step sizes, which takes longer


def characters() -> Splits:
    try:
        return omniglot("finn")
    except DataUnavailable:
        return Splits(glyphs("train"), glyphs("val"), glyphs("test"))


def classifier(ways: int) -> nn.Sequential:
    return nn.Sequential(Conv4(1, 64, "stride", "mean", BatchStatisticsNorm), nn.Linear(64, ways))


def maml(net: nn.Module, steps: int, lr: float = 2.0) -> MAML:
    return MAML(net, lr, steps, differentiate="reverse")


def meta_trained(splits: Splits, steps: int) -> nn.Module:
    net = classifier(WAYS)
    tasks, validation = Episodes(splits.train, WAYS, 1, 1), Episodes(splits.val, WAYS, 1, 5, seed=1, length=CHOICE)
    with show_progress("MAML") as watch:
        train(maml(net, 1), tasks, steps=steps, tasks_per_step=TASKS, validation=validation, every=250, watch=watch)
    return net


def pretrained(data: LabelledData, steps: int) -> nn.Module:
    """Learn to tell all training characters apart, then put a last layer for a task in place of theirs."""
    net = classifier(len(data.classes))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        rows = torch.randint(len(data.x), (TASKS * WAYS * 2,))  # as many pictures as in MAML's tasks
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(data.x[rows] / 255), data.labels[rows]).backward()
        optimizer.step()
    net[1] = nn.Linear(64, WAYS)
    nn.init.zeros_(net[1].weight)
    return net


def best_rate(net: nn.Module, data: LabelledData, steps: int) -> float:
    tasks = Episodes(data, WAYS, 1, 5, seed=1, length=CHOICE // 2)
    return max(RATES, key=lambda lr: evaluate(maml(net, steps, lr), tasks).mean)


def main(out: Path = FIGURES, steps: int = 2000, test_tasks: int = 600) -> None:
    torch.manual_seed(0)
    splits = characters()
    nets = {"MAML": meta_trained(splits, steps), "pretrained": pretrained(splits.train, steps)}
    nets["random weights"] = classifier(WAYS)
    test, name = Episodes(splits.test, WAYS, 1, 5, seed=2, length=test_tasks), splits.test.stamp["data"]
    results = {}
    for start, net in nets.items():
        rates = [2.0 if start == "MAML" else best_rate(net, splits.val, count) for count in COUNTS]
        results[start] = [evaluate(maml(net, *pair), test) for pair in zip(COUNTS, rates, strict=True)]
        shown = ", ".join(f"{count}: {result.short()}" for count, result in zip(COUNTS, results[start], strict=True))
        print(f"{start}, accuracy after so many steps: {shown}; {test_tasks} tasks of {name}; step sizes {rates}")
    for count, *pair in zip(COUNTS, results["MAML"], results["pretrained"], strict=True):
        print(f"MAML less pretrained after {count} steps: {compare(*pair)}")

    def draw(axes: Axes, palette: Palette) -> None:
        lines(axes, COUNTS, results, [(palette.main, 5), (palette.other, -5), (palette.muted, 0)])
        axes.set_title(f"Accuracy on {test_tasks} tasks of 5 unseen characters, one example each, {name}, %")
        axes.set(xlabel="gradient steps at test time", xticks=COUNTS, ylim=(0, 102))

    save_figure(out, "maml-omniglot", (7.2, 3.6), [draw])


if __name__ == "__main__":
    keep_freed_memory()  # on Linux, nearly twice as fast on a CPU
    main()
