"""See who pays where a few classes have many examples and most have few.

60 classes are clouds of points that 6 of 32 numbers tell apart; the largest has 300 training examples, the smallest 3. One
net is trained as usual, to tell all classes apart by a linear head. Its embeddings are used once more, with the mean of each
class for its head, which knows nothing of how frequent a class is; and a second net is meta-trained on balanced tasks of the
same examples. All are judged on 50 new examples of every class. Groups of classes are those of Ziwei Liu et al. 2019,
"Large-scale long-tailed recognition in an open world".

    python examples/long_tail.py
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from kshot.core import Batch, one_hot
from kshot.evaluation import Evaluation
from kshot.learners.metric import Prototypical
from kshot.learners.transfer import Classifier
from kshot.nets.mlp import MLP
from kshot.report.figures import Palette, save_figure
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import LabelledData
from kshot.tasks.minibatches import Minibatches
from kshot.training import train
from lines import FIGURES, lines

CLASSES = 60
SIZES = torch.from_numpy(np.geomspace(300, 3, CLASSES).round()).long()
GROUPS = {"3 to 20 examples": SIZES <= 20, "21 to 100": (SIZES > 20) & (SIZES <= 100), "over 100": SIZES > 100}
MEANS = 2 * torch.randn(CLASSES, 6, generator=torch.Generator().manual_seed(0))


def draw_examples(sizes: Tensor, seed: int) -> LabelledData:
    generator, labels = torch.Generator().manual_seed(seed), torch.arange(CLASSES).repeat_interleave(sizes)
    noise = torch.randn(len(labels), 32, generator=generator)
    return LabelledData.from_arrays(torch.cat([MEANS[labels] + noise[:, :6], 2 * noise[:, 6:]], 1), labels)


def nearest_mean(encoder: nn.Module, data: LabelledData) -> Callable[[Tensor], Tensor]:
    learner = Prototypical(encoder).eval()
    state = learner.adapt(Batch(encoder(data.x), one_hot(data.labels, CLASSES)))
    return lambda x: learner.predict(state, encoder(x))


def by_group(predict: Callable[[Tensor], Tensor], test: LabelledData) -> list[Evaluation]:
    """Return the accuracy of each group, its classes for what is counted."""
    right = (predict(test.x).argmax(1) == test.labels).double().view(CLASSES, -1).mean(1)
    return [Evaluation("accuracy", True, right[group]) for group in GROUPS.values()]


def main(out: Path = FIGURES, steps: int = 2000) -> None:
    torch.manual_seed(0)
    data, test = draw_examples(SIZES, seed=1), draw_examples(torch.full((CLASSES,), 50), seed=2)
    encoder, head, other = MLP(32, 64, 32), nn.Linear(32, CLASSES), MLP(32, 64, 32)
    train(Classifier(Prototypical(encoder), head), Minibatches(data, 128), steps=steps, tasks_per_step=1)
    train(Prototypical(other), Episodes(data, ways=30, shots=1, queries=2), steps=steps, tasks_per_step=2)
    with torch.no_grad():
        results = {
            "linear head": by_group(lambda x: head(encoder(x)), test),
            "class means for a head": by_group(nearest_mean(encoder, data), test),
            "meta-trained, class means": by_group(nearest_mean(other, data), test),
        }
    for name, of_name in results.items():
        print(f"{name}: {', '.join(f'{g} {r.short()}' for g, r in zip(GROUPS, of_name, strict=True))}")

    def draw(axes: Axes, palette: Palette) -> None:
        lines(axes, range(len(GROUPS)), results, [(palette.ink, 0), (palette.other, 5), (palette.main, -7)])
        axes.set_xticks(range(len(GROUPS)), [f"{name}\n({int(of.sum())} classes)" for name, of in GROUPS.items()])
        axes.set(title="Accuracy on new examples, %", ylim=(0, 100))

    save_figure(out, "long-tail", (7.2, 3.6), [draw])


if __name__ == "__main__":
    main()
