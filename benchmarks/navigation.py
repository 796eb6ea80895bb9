"""2D navigation: MAML beside pretraining, random weights and the oracle, after 0 to 3 steps of adaptation.

Finn, Abbeel, Levine 2017, "Model-agnostic meta-learning", section 5.3 and table 4. Training: 20 tasks a step, 20
trajectories of 100 steps before and after one inner step, trust regions of 0.01. The weights that are best on validation
goals, by the mean return after steps 1 to 3, are judged once: on 40 goals that training never drew, from 40 trajectories
a step (4,000 steps of the environment, as in the paper).

    python benchmarks/navigation.py --seed 0
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from kshot.allocator import keep_freed_memory
from kshot.evaluation import compare
from kshot.rl.environments.navigation import Navigation2D
from kshot.rl.evaluation import VALIDATION_SEED, adaptation_curve
from kshot.rl.gradient_learner import Setting
from kshot.rl.maml_trpo import MAMLTRPO
from kshot.rl.policies import policy_for
from policy_runs import trained
from rows import result_row, write_rows

PUBLISHED = {
    "MAML": (-40.41, -11.68, -3.33, -3.23),
    "pretrained": (-40.81, -19.73, -11.72, -8.47),
    "random": (-82.66, -57.96, -53.84, -46.81),
    "oracle": (-2.29,),
}
RATES = (0.1, 0.05, 0.05)  # of MAML, as in the paper: halved after the first step
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)  # times RATES, among which fine-tuning has its choice on validation goals
HIDDEN = (64, 64)


def learner_of(environment: Navigation2D, seed: int) -> MAMLTRPO:
    torch.manual_seed(seed)
    return MAMLTRPO(policy_for(environment, HIDDEN), lr=RATES[0])


def best_rates(learner: MAMLTRPO, environment: Navigation2D) -> Sequence[float]:
    """Choose the step sizes of fine-tuning on validation goals: such a policy was trained for none."""
    choices = [tuple(factor * rate for rate in RATES) for factor in FACTORS]

    def score(rates: Sequence[float]) -> float:
        curve = adaptation_curve(learner.inner, environment, rates=rates, seed=VALIDATION_SEED)
        return sum(result.mean for result in curve[1:])

    return max(choices, key=score)


def main() -> None:
    """Train, judge, and write rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=Path("runs/navigation"))
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)  # the nets are too small for more
    plain, told = Navigation2D(), Navigation2D(tells_goal=True)
    rows, curves = [], {}
    for name in PUBLISHED:
        environment = told if name == "oracle" else plain
        learner = learner_of(environment, options.seed)
        spent = {"step": 0, "seconds": 0.0}
        if name != "random":
            setting = Setting(steps=1, test_rates=RATES) if name == "MAML" else Setting(steps=0, test_rates=())
            minutes = options.minutes if name == "MAML" else options.minutes / 6  # no second derivatives to take
            budget = {"steps": options.steps, "minutes": minutes, "seed": options.seed}
            spent = trained(options.out / f"{name}-{options.seed}", learner, environment, setting, **budget)
        rates = {"MAML": RATES, "oracle": ()}.get(name) if name in ("MAML", "oracle") else best_rates(learner, plain)
        curves[name] = adaptation_curve(learner.inner, environment, rates=rates)
        for steps, (result, published) in enumerate(zip(curves[name], PUBLISHED[name], strict=True)):
            print(f"{name}, {steps} steps: {result}")
            more = {"learner": name, "ways": None, "shots": 40, "gradient_steps": steps, "published": published}
            spent_by = {"seed": options.seed, "steps": spent["step"], "seconds": round(spent["seconds"])}
            rows.append(result_row(result, **more, **spent_by, variant="MLP 64-64"))
    for name in ("pretrained", "random"):
        print(f"MAML less {name} after 1 step: {compare(curves['MAML'][1], curves[name][1])}")
    write_rows("navigation", rows)


if __name__ == "__main__":
    main()
