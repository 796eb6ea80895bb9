"""Bandits: a recurrent policy that learns to learn (RL²), beside what is known to be good at them.

Duan et al. 2016, "RL²: Fast reinforcement learning via slow reinforcement learning", table 1. Arms pay one with a chance of
their own, uniform in [0, 1]; the total of n pulls of k arms. The policy is trained by PPO on bandits drawn anew for every
step, that for 100 pulls on 10 and on 30 before. Gittins' index is computed here for a Beta(1, 1) prior and a discount of
0.99, Thompson's sampling draws from the posterior; both meet the same test bandits. Intervals are over bandits.

    python benchmarks/bandits.py --pulls 10 --arms 5 --minutes 10
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kshot.allocator import keep_freed_memory
from kshot.checkpoint import load_checkpoint
from kshot.evaluation import Evaluation, compare
from kshot.progress import show_progress
from kshot.rl.environments.bandit import Bandit
from kshot.rl.ppo import PPO
from kshot.rl.recurrent_policy import RecurrentPolicy
from kshot.rl.rl2 import RL2, TrialSetting
from kshot.rl.training import train_policy
from kshot.rl.trials import collect_trials
from rows import result_row, write_rows

PUBLISHED = {  # of Gittins' index, random choice and RL²
    (10, 5): (6.6, 5.0, 6.7),
    (100, 5): (78.3, 49.9, 78.7),
    (100, 10): (82.8, 49.9, 83.5),
}
# Trials of 100 pulls are too noisy to begin with: shorter ones come first. A small lambda is less noisy too, but leans on
# values that do not know what trying pays later; many trials in a step can do without. Pulls, minutes' share, trials in a
# step, lambda of the advantage estimates.
STAGES = {100: ((10, 0.105, 1000, 0.3), (30, 0.105, 333, 0.3), (100, 0.49, 250, 0.3), (100, 0.3, 2000, 0.95))}
DISCOUNT, DEPTH, GRID = 0.99, 300, 500
GITTINS = "Gittins' index"
TEST = 4000
Rule = Callable[[Tensor, Tensor, torch.Generator], Tensor]  # of (n, k) wins and losses, returns scores of arms


def gittins_index(pulls: int) -> Tensor:
    """Return the index for each number of wins and losses, ``(pulls + 1, pulls + 1)``.

    It is the sure payment for ever that is worth as much as the arm, by backward induction over a grid of payments.
    """
    sure = torch.linspace(0, 1, GRID, dtype=torch.float64) / (1 - DISCOUNT)
    index = torch.zeros(pulls + 1, pulls + 1, dtype=torch.float64)
    last = pulls + DEPTH
    wins = torch.arange(last + 1, dtype=torch.float64)
    value = torch.maximum(sure, ((wins + 1) / (last + 2) / (1 - DISCOUNT))[:, None])  # then the mean is all but known
    for tried in reversed(range(last)):
        mean = ((torch.arange(tried + 1, dtype=torch.float64) + 1) / (tried + 2))[:, None]
        go_on = mean + DISCOUNT * (mean * value[1 : tried + 2] + (1 - mean) * value[: tried + 1])
        if tried <= pulls:
            worth = (go_on >= sure).sum(1) - 1  # the largest payment for which to go on is as good
            index[torch.arange(tried + 1), tried - torch.arange(tried + 1)] = worth.clamp_min(0).double() / (GRID - 1)
        value = torch.maximum(sure, go_on)
    return index


def play(rule: Rule, chances: Tensor, pulls: int, seed: int) -> Tensor:
    """Return what a rule earns in each bandit."""
    generator = torch.Generator().manual_seed(seed)
    wins, losses = torch.zeros_like(chances), torch.zeros_like(chances)
    for _ in range(pulls):
        scores = rule(wins, losses, generator)
        noise = torch.rand(scores.shape, generator=generator) * 1e-6  # ties are broken at random
        arm = (scores + noise).argmax(1, keepdim=True)
        paid = (torch.rand(arm.shape, generator=generator) < chances.gather(1, arm)).to(wins)
        wins.scatter_add_(1, arm, paid)
        losses.scatter_add_(1, arm, 1 - paid)
    return wins.sum(1)


def thompson(wins: Tensor, losses: Tensor, generator: torch.Generator) -> Tensor:
    random = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    return torch.from_numpy(random.beta(1 + wins.numpy(), 1 + losses.numpy())).float()


def trained(env: Bandit, options: argparse.Namespace) -> tuple[RecurrentPolicy, int]:
    """Train for so many minutes, going on with what the folder holds; validation chooses the weights."""
    torch.manual_seed(options.seed)
    policy = RecurrentPolicy(env.features, env.actions, options.hidden)
    steps = 0
    for stage, (pulls, share, trials, decay) in enumerate(STAGES.get(env.horizon, ((env.horizon, 1.0, 1000, 0.3),))):
        optimizer = torch.optim.Adam(policy.parameters(), options.lr)
        learner = RL2(PPO(policy, optimizer, decay=decay))
        folder = options.out / f"{env.horizon}-{env.actions}-{options.seed}" / f"{stage}-{pulls}-pulls"
        resume, setting = (folder / "last.safetensors").exists(), TrialSetting(trials)
        with show_progress(f"RL², {pulls} pulls") as watch:
            told = {"out": folder, "resume": resume, "seed": options.seed, "watch": watch, "validation_tasks": 1000}
            told["every"] = 25_000 // trials
            budget = options.minutes * share
            steps += train_policy(learner, Bandit(env.actions, pulls), setting, minutes=budget, **told).steps
        policy.load_state_dict(load_checkpoint(folder / "best.safetensors")["learner"])
    return policy, steps


def main() -> None:
    """Train, judge, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pulls", type=int, default=10)
    parser.add_argument("--arms", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hidden", type=int, default=64, help="size of the state")
    parser.add_argument("--lr", type=float, default=2e-3, help="of Adam; it falls to zero with each length of trials")
    parser.add_argument("--out", type=Path, default=Path("runs/bandits"))
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    env = Bandit(options.arms, options.pulls)
    policy, steps = trained(env, options)
    tasks = env.draw_tasks(2, np.arange(TEST))
    index = gittins_index(options.pulls).float()
    rules: dict[str, Rule] = {
        GITTINS: lambda wins, losses, _: index[wins.long(), losses.long()],
        "random": lambda wins, _, __: torch.zeros_like(wins),
        "Thompson's sampling": thompson,
    }
    earned = {name: play(rule, tasks["chances"], options.pulls, seed=3) for name, rule in rules.items()}
    earned["RL²"] = collect_trials(env, policy, tasks, 1, torch.Generator().manual_seed(3)).returns()
    stamp = {**env.stamp, "task seed": "2"}
    results = {name: Evaluation("return", True, paid.double(), stamp) for name, paid in earned.items()}
    published = dict(
        zip((GITTINS, "random", "RL²"), PUBLISHED.get((env.horizon, env.actions), (None,) * 3), strict=True)
    )
    rows = []
    for name, result in results.items():
        print(f"{name}: {result}")
        spent = (
            {"seconds": round(60 * options.minutes), "steps": steps} if name == "RL²" else {"seconds": 0, "steps": 0}
        )
        told = {
            "variant": f"GRU {options.hidden}" if name == "RL²" else "",
            "learner": name,
            "arms": env.actions,
            "pulls": env.horizon,
            "published": published.get(name),
        }
        rows.append(result_row(result, **told, seed=options.seed, **spent))
    print(f"RL² less Gittins' index: {compare(results['RL²'], results[GITTINS])}")
    write_rows("bandits", rows)


if __name__ == "__main__":
    main()
