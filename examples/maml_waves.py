"""Infer a whole sine wave from five points, or from five points of one half of it.

Three nets of one size: MAML's, one pretrained on all waves together, and an oracle that is told amplitude and phase. Points
from the right half alone say nothing of the left, but for a learner that has met waves. After figure 2 of Finn, Abbeel,
Levine 2017, with fewer steps of training than the paper's 70,000; it takes a few minutes.

    python examples/maml_waves.py
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kshot.core import Batch, Episode
from kshot.evaluation import evaluate
from kshot.learners.gradient import MAML
from kshot.report.figures import Panel, save_wave_figure
from kshot.tasks.sinusoid import KnownSinusoids, Sinusoids
from lines import FIGURES
from maml_steps import best_rate, maml, trained


class LeftHalf(Sinusoids):
    """Waves whose queries lie left of zero."""

    def sample(self, items: NDArray[np.int64]) -> Episode:
        (support, query), (amplitude, phase) = super().sample(items), self.waves(items)
        x = -query.x.abs()
        return Episode(support, Batch(x, amplitude * (x - phase).sin()))


def predicted(learner: MAML, support: Batch, x: torch.Tensor) -> dict[str, torch.Tensor]:
    curves = {}
    for count, name in ((0, "before"), (1, "after 1 step"), (10, "after 10 steps")):
        stepped = maml(learner.model, count, learner.lr)
        curves[name] = stepped.predict(stepped.adapt(support), x)
    return curves


@torch.no_grad()
def panels(learners: dict[str, MAML], oracle: MAML, waves: Sinusoids, item: int) -> list[Panel]:
    """Predict one wave by each learner; the oracle is told which it is, and takes no step."""
    support, x = waves[item].support, torch.linspace(-5, 5, 200)[:, None]
    amplitude, phase = (value.flatten() for value in waves.waves(np.array([item])))
    truth = amplitude * (x - phase).sin()
    told = torch.cat([x, amplitude.expand_as(x), phase.expand_as(x)], -1)
    drawn = [Panel(name, x, truth, support, predicted(learner, support, x)) for name, learner in learners.items()]
    return [
        *drawn,
        Panel(
            "Oracle",
            x,
            truth,
            support,
            {"told amplitude and phase": oracle.predict(oracle.adapt(Batch(told, truth)), told)},
        ),
    ]


def main(out: Path = FIGURES, steps: int = 10_000, test_tasks: int = 1000, shown: tuple[int, int] = (0, 1)) -> None:
    pretrained = trained("pretrained", 0, steps)
    learners = {"MAML": maml(trained("MAML", 1, steps), 1), "Pretrained": maml(pretrained, 1, best_rate(pretrained))}
    oracle = maml(trained("oracle", 0, steps, KnownSinusoids), 0)
    sources = {"5 points": Sinusoids(5, 100, seed=2, length=test_tasks)}
    sources["5 points of the right half, queries of the left"] = LeftHalf(5, 100, 2, test_tasks, x_range=(0.0, 5.0))
    for kind, source in sources.items():
        for name, learner in learners.items():
            results = {n: evaluate(maml(learner.model, n, learner.lr), source, 100).short() for n in (0, 1, 10)}
            print(f"{kind}; {name}, step size {learner.lr}, MSE after so many steps: {results}; {test_tasks} waves")
    known = evaluate(oracle, KnownSinusoids(5, 100, seed=2, length=test_tasks), 100)
    print(f"oracle, MSE without a step: {known.short()}")
    whole, half = (panels(learners, oracle, source, item) for source, item in zip(sources.values(), shown, strict=True))
    save_wave_figure(out, "maml-waves", [*whole, *half], columns=3)


if __name__ == "__main__":
    main()
