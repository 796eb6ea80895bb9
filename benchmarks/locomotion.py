"""Cheetahs and ants that are told where, or how fast, to run only by what is paid: MAML after 0 to 3 steps of adaptation.

Finn, Abbeel, Levine 2017, "Model-agnostic meta-learning", section 5.3, in the environments of their code on a current
MuJoCo, beside random weights and the oracle that sees the goal. A policy 100-100, trajectories of 200 steps before and
after one inner step. Judged once on 40 tasks that training never drew, or for directions, of which there are two, on those
it did. ProMP (Rothfuss et al. 2019) adapts in the same way, and Adam trains it. Slopes, which the paper has not: trained
within 10 degrees, judged on 40 of 10 to 20 degrees uphill. The oracle has half of the minutes, since it has no inner step.

    python benchmarks/locomotion.py --env cheetah-dir --minutes 60
"""

import argparse
from pathlib import Path

import torch

from kshot.allocator import keep_freed_memory
from kshot.rl.environments.ant import AntDir, AntVel
from kshot.rl.environments.half_cheetah import HalfCheetahDir, HalfCheetahVel
from kshot.rl.environments.slopes import HalfCheetahSlope
from kshot.rl.evaluation import adaptation_curve
from kshot.rl.gradient_learner import GradientPolicyLearner, Setting
from kshot.rl.maml_trpo import MAMLTRPO
from kshot.rl.policies import Policy, policy_for
from kshot.rl.promp import ProMP
from policy_runs import trained
from rows import result_row, write_rows

KINDS = {
    "cheetah-dir": HalfCheetahDir,
    "cheetah-vel": HalfCheetahVel,
    "cheetah-slope": HalfCheetahSlope,
    "ant-dir": AntDir,
    "ant-vel": AntVel,
}
STEEP = {"slopes": (10.0, 20.0)}
LEARNERS = ("MAML", "ProMP", "random", "oracle")
NOTHING = (None,) * 4
PUBLISHED = {
    "cheetah-dir": {
        "MAML": (-50.69, 293.19, 313.48, 315.65),
        "random": (-35.73, 21.83, 62.32, 86.18),
        "oracle": (442.69,),
    },
    "cheetah-vel": {
        "MAML": (-129.53, -78.57, -66.62, -60.78),
        "random": (-254.8, -254.3, -246.8, -230.8),
        "oracle": (-54.47,),
    },
    "cheetah-slope": {"MAML": NOTHING, "random": NOTHING, "oracle": (None,)},
    "ant-dir": {"MAML": (8.66, 499.15, 500.68, 499.11), "random": (3.11, 9.25, 15.96, 26.11), "oracle": (524.80,)},
    "ant-vel": {"MAML": (30.58, 96.74, 100.06, 101.41), "random": (-78.6, -62.8, -48.6, -35.6), "oracle": (107.89,)},
}
RATES = (0.1, 0.05, 0.05)  # halved after the first step, as in the paper
HIDDEN = (100, 100)


def learner_of(name: str, policy: Policy, options: argparse.Namespace) -> GradientPolicyLearner:
    if name == "ProMP":
        return ProMP(policy, lr=RATES[0])
    told = {"radius": options.radius, "fisher_tasks": options.fisher_tasks, "threads": options.threads}
    return MAMLTRPO(policy, RATES[0], **told)


def run(name: str, options: argparse.Namespace) -> None:
    """Train one of the policies, judge it, and write its rows."""
    kind, oracle = KINDS[options.env], name == "oracle"
    told = {"preset": "finn2017", "threads": options.threads, "tells_goal": oracle}
    environment = kind(**told)
    torch.manual_seed(options.seed)
    learner = learner_of(name, policy_for(environment, HIDDEN), options)
    spent = {"step": 0, "seconds": 0.0}
    if name != "random":
        setting = Setting(
            options.tasks, options.trajectories, 0 if oracle else 1, test_rates=() if oracle else RATES[:1]
        )
        budget = {"minutes": options.minutes / 2 if oracle else options.minutes, "seed": options.seed}
        folder = options.out / f"{options.env}-{name}-{options.seed}"
        spent = trained(folder, learner, environment, setting, steps=options.steps, **budget)
    unseen = kind(**told, **STEEP) if options.env == "cheetah-slope" else environment
    rates = () if oracle else RATES
    curve = adaptation_curve(learner.inner, unseen, rates=rates, trajectories=options.trajectories)
    rows = []
    for steps, (result, published) in enumerate(zip(curve, PUBLISHED[options.env].get(name, NOTHING), strict=True)):
        print(f"{name}, {steps} steps: {result}", flush=True)
        more = {"learner": name, "ways": None, "shots": options.trajectories, "gradient_steps": steps}
        spent_by = {"seed": options.seed, "steps": spent["step"], "seconds": round(spent["seconds"])}
        region = f", radius {options.radius}, Fisher information of {options.fisher_tasks or 'all'}"
        variant = f"MLP 100-100, {options.tasks} tasks a step{'' if name == 'ProMP' else region}"
        rows.append(result_row(result, **more, published=published, **spent_by, variant=variant))
    write_rows("locomotion", rows)


def main() -> None:
    """Train, judge, and write rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=LEARNERS)
    parser.add_argument("--env", choices=list(KINDS), default="cheetah-dir")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=40, help="of a step; the paper's default")
    parser.add_argument(
        "--trajectories", type=int, default=20, help="of a task; 40 for ants in a direction in the paper"
    )
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=60.0, help="of MAML; the oracle has half of them")
    parser.add_argument(
        "--radius", type=float, default=0.01, help="of the trust region; 0.02 for cheetah-dir in their code"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fisher-tasks", type=int, help="those that the Fisher information is of; all by default")
    parser.add_argument("--out", type=Path, default=Path("runs/locomotion"))
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)  # the nets are too small for more
    for name in options.learners:
        run(name, options)


if __name__ == "__main__":
    main()
