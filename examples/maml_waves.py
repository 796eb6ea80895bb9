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
    """Waves whose queries lie left of zero, where none of the support points may be."""

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
def panels(learners: dict[str, MAML], oracle: MAML, waves: Sinusoids, item: int, given: str) -> list[Panel]:
    """Predict one wave by each learner; the oracle is told which it is, and takes no step."""
    support, x = waves[item].support, torch.linspace(-5, 5, 200)[:, None]
    amplitude, phase = (value.flatten() for value in waves.waves(np.array([item])))
    truth = amplitude * (x - phase).sin()
    told = Batch(torch.cat([x, amplitude.expand_as(x), phase.expand_as(x)], -1), truth)
    curves = {f"{name}, {given}": predicted(learner, support, x) for name, learner in learners.items()}
    curves["Oracle"] = {"told amplitude and phase": oracle.predict(oracle.adapt(told), told.x)}
    return [Panel(title, x, truth, support, of_title) for title, of_title in curves.items()]


def main(out: Path = FIGURES, steps: int = 10_000, test_tasks: int = 1000) -> None:
    pretrained = trained("pretrained", 0, steps)
    learners = {
        "MAML": maml(trained("MAML", 1, steps), 1),
        "Pretrained": maml(pretrained, 1, best_rate(pretrained, 10)),
    }
    oracle = maml(trained("oracle", 0, steps, KnownSinusoids), 0)
    everywhere = Sinusoids(5, 100, seed=2, length=test_tasks)
    right = LeftHalf(5, 100, seed=2, length=test_tasks, x_range=(0.0, 5.0))
    drawn = []
    for source, given in ((everywhere, "5 points"), (right, "5 points on the right")):
        off = []
        for name, learner in learners.items():
            results = {count: evaluate(maml(learner.model, count, learner.lr), source, 100) for count in (0, 1, 10)}
            shown = ", ".join(f"{count}: {result.short()}" for count, result in results.items())
            print(f"{name}, {given}, step size {learner.lr}, MSE after so many steps: {shown}; {test_tasks} waves")
            off.append((results[10].scores / results[10].scores.median()).log().abs())
        # Draw the wave on which both are as good as on half of all waves.
        drawn += panels(learners, oracle, source, int(torch.stack(off).amax(0).argmin()), given)
    known = evaluate(oracle, KnownSinusoids(5, 100, seed=2, length=test_tasks), 100)
    print(f"oracle, MSE without a step: {known.short()}")
    save_wave_figure(out, "maml-waves", drawn, columns=3)


if __name__ == "__main__":
    main()
