"""See a policy learn to learn where to go: its paths in tasks that are new to it, before adaptation and after each step.

A point in the plane is paid for how near it is to a goal that it is not told (Finn, Abbeel, Levine 2017, "Model-agnostic
meta-learning", section 5.3). MAML finds weights of a policy from which policy-gradient steps on a few trajectories, of a
hundred moves each, lead to the goal; the other policy is trained on all goals together, by the same trust-region steps, and
adapts in the same way. Trained here for a few minutes; for half an hour see benchmarks/navigation.py.

    python examples/navigation_paths.py
"""

from pathlib import Path

import torch
from matplotlib.axes import Axes

from kshot.progress import show_progress
from kshot.report.figures import Draw, Palette, save_figure
from kshot.rl.environments.navigation import Navigation2D
from kshot.rl.evaluation import adaptation_curve, adaptation_trajectories
from kshot.rl.gradient_learner import Setting
from kshot.rl.maml_trpo import MAMLTRPO
from kshot.rl.policies import policy_for
from kshot.rl.training import train_policy
from lines import FIGURES, lines

SHOWN, PATHS = 3, 5  # tasks, and trajectories of each
RATES = (0.1, 0.05, 0.05)


def trained(name: str, inner_steps: int, steps: int) -> MAMLTRPO:
    torch.manual_seed(0)
    learner = MAMLTRPO(policy_for(Navigation2D(), (64, 64)), lr=0.1)
    rates = RATES if inner_steps else ()
    with show_progress(name) as watch:
        setting = Setting(steps=inner_steps, test_rates=rates)
        train_policy(learner, Navigation2D(), setting, steps=steps, every=10, watch=watch)
    return learner


def paths(learner: MAMLTRPO, title: str, step: int) -> Draw:
    """Draw trajectories after so many steps, each task in a colour of its own, its goal a star."""
    found = adaptation_trajectories(learner.inner, Navigation2D(), tasks=SHOWN, rates=RATES)[step]
    goals = Navigation2D().draw_tasks(2, torch.arange(SHOWN).numpy())["goal"]

    def draw(axes: Axes, palette: Palette) -> None:
        for task, colour in enumerate((palette.main, palette.other, palette.ink)):
            for number in range(PATHS):
                on = found.mask[task, :, number] > 0
                axes.plot(*found.observations[task, on, number].T, color=colour, alpha=0.6, linewidth=1)
            axes.plot(*goals[task], "*", color=colour, markersize=15, markeredgecolor=palette.line, zorder=3)
        axes.set(title=title, xlim=(-0.8, 0.8), ylim=(-0.8, 0.8), aspect="equal")

    return draw


def main(out: Path = FIGURES, steps: int = 60) -> None:
    torch.set_num_threads(1)  # the nets are too small for more
    learners = {"MAML": trained("MAML", 1, steps), "pretrained": trained("pretrained", 0, steps)}
    curves = {name: adaptation_curve(learner.inner, Navigation2D(), rates=RATES) for name, learner in learners.items()}
    for name, curve in curves.items():
        print(f"{name}, return after 0 to 3 steps: {', '.join(result.short() for result in curve)}")

    def draw(axes: Axes, palette: Palette) -> None:
        lines(axes, range(4), curves, [(palette.main, 0), (palette.other, 0)])
        axes.set(title="Return, 40 new goals", xlabel="steps of adaptation")
        axes.set_xticks(range(4))

    titles = ("MAML, before adaptation", "after one step", "after three steps")
    panels = [paths(learners["MAML"], title, step) for title, step in zip(titles, (0, 1, 3), strict=True)]
    save_figure(out, "navigation", (13.0, 3.4), [*panels, draw])


if __name__ == "__main__":
    main()
