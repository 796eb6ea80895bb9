"""Half-cheetahs in a direction or at a speed: MAML beside random weights and the oracle, after 0 to 3 steps of adaptation.

Finn, Abbeel, Levine 2017, "Model-agnostic meta-learning", section 5.3, in the environment of their code on a current MuJoCo.
A policy 100-100, 40 tasks a step as in the paper, or fewer as the row says, 20 trajectories of 200 steps before and after
one inner step. Judged once on 40 tasks that training never drew, 20 trajectories a step (4,000 steps of the environment, as
in the paper). There are two directions only, so those of the test are trained on.

    python benchmarks/cheetah.py --env dir --minutes 60
"""

import argparse
from pathlib import Path

import torch

from kshot.allocator import keep_freed_memory
from kshot.rl.environments.half_cheetah import HalfCheetahDir, HalfCheetahVel
from kshot.rl.evaluation import adaptation_curve
from kshot.rl.gradient_learner import Setting
from kshot.rl.maml_trpo import MAMLTRPO
from kshot.rl.policies import policy_for
from policy_runs import trained
from rows import result_row, write_rows

PUBLISHED = {
    "dir": {"MAML": (-50.69, 293.19, 313.48, 315.65), "random": (-35.73, 21.83, 62.32, 86.18), "oracle": (442.69,)},
    "vel": {"MAML": (-129.53, -78.57, -66.62, -60.78), "random": (-254.8, -254.3, -246.8, -230.8), "oracle": (-54.47,)},
}
RATES = (0.1, 0.05, 0.05)  # halved after the first step, as in the paper
HIDDEN = (100, 100)


def main() -> None:
    """Train, judge, and write rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", choices=list(PUBLISHED), default="dir")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=60.0, help="of MAML; the oracle has half of them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fisher-tasks", type=int, help="those that the Fisher information is of; all by default")
    parser.add_argument("--out", type=Path, default=Path("runs/cheetah"))
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)  # the nets are too small for more
    kind = HalfCheetahDir if options.env == "dir" else HalfCheetahVel
    plain = kind("finn2017", threads=options.threads)
    told = kind("finn2017", threads=options.threads, tells_goal=True)
    rows = []
    for name, figures in PUBLISHED[options.env].items():
        environment = told if name == "oracle" else plain
        torch.manual_seed(options.seed)
        learner = MAMLTRPO(
            policy_for(environment, HIDDEN), RATES[0], fisher_tasks=options.fisher_tasks, threads=options.threads
        )
        spent = {"step": 0, "seconds": 0.0}
        if name != "random":
            setting = Setting(tasks=options.tasks, steps=1, test_rates=RATES[:1])
            minutes = options.minutes
            if name == "oracle":
                setting, minutes = Setting(tasks=options.tasks, steps=0, test_rates=()), minutes / 2
            budget = {"steps": options.steps, "minutes": minutes, "seed": options.seed}
            spent = trained(
                options.out / f"{options.env}-{name}-{options.seed}", learner, environment, setting, **budget
            )
        rates = () if name == "oracle" else RATES
        curve = adaptation_curve(learner.inner, environment, rates=rates, trajectories=20)
        for steps, (result, published) in enumerate(zip(curve, figures, strict=True)):
            print(f"{name}, {steps} steps: {result}", flush=True)
            more = {"learner": name, "ways": None, "shots": 20, "gradient_steps": steps, "published": published}
            spent_by = {"seed": options.seed, "steps": spent["step"], "seconds": round(spent["seconds"])}
            rows.append(result_row(result, **more, **spent_by, variant=f"MLP 100-100, {options.tasks} tasks a step"))
    write_rows("cheetah", rows)


if __name__ == "__main__":
    main()
