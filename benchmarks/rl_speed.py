"""How long an outer step of MAML-TRPO takes on 2D navigation: a policy 64-64, 20 tasks, 20 trajectories of 100 steps twice.

Ten conjugate gradients, with products that are exact: all samples, through the inner step. Seconds are wall clock,
medians over outer steps; the first, which traces the products, is left out. The rival's 4.0 s are of tristandeleu's port
(pytorch-maml-rl) with the same sizes on such a machine, in two processes, one of which samples; it is not run here,
since it needs a gym that no longer installs.

    python benchmarks/rl_speed.py
"""

import argparse
import statistics
import time

import numpy as np
import torch

from kshot.allocator import keep_freed_memory
from kshot.rl.advantages import to_samples
from kshot.rl.collect import collect
from kshot.rl.environments.navigation import Navigation2D
from kshot.rl.maml_trpo import MAMLTRPO
from kshot.rl.policies import policy_for
from rows import write_rows

TASKS, TRAJECTORIES, HIDDEN = 20, 20, (64, 64)
RIVAL = 4.0


def main() -> None:
    """Time the parts of an outer step, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    env, generator = Navigation2D(), torch.Generator().manual_seed(0)
    learner = MAMLTRPO(policy_for(env, HIDDEN), lr=0.1, threads=options.threads)
    spent: list[list[float]] = []
    for turn in range(options.turns + 1):
        tasks = env.draw_tasks(0, np.arange(TASKS * turn, TASKS * (turn + 1)))
        clock = [time.perf_counter()]
        weights = learner.inner.start(TASKS)
        before = to_samples(collect(env, learner.policy, weights, tasks, TRAJECTORIES, generator))
        clock.append(time.perf_counter())
        weights = learner.inner(weights, before)
        clock.append(time.perf_counter())
        after = to_samples(collect(env, learner.policy, weights, tasks, TRAJECTORIES, generator))
        clock.append(time.perf_counter())
        learner.update([before], after)
        clock.append(time.perf_counter())
        if turn:
            spent.append([clock[-1] - clock[0], *np.diff(clock)])
    total, first, adapting, second, outer = (statistics.median(column) for column in zip(*spent, strict=True))
    parts = {"collecting": first + second, "adapting": adapting, "trust region": outer}
    told = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in parts.items())
    print(f"{total:.2f} s an outer step, {RIVAL / total:.1f} times the rival's speed; {told}")
    told = {"learner": "MAML-TRPO", "metric": "seconds a step", "value": total, "ratio": RIVAL / total}
    sizes = f"{TASKS} tasks, {TRAJECTORIES} x 100 steps twice, MLP 64-64, 10 products, exact, all samples"
    protocol = f"{sizes}, {options.threads} threads; wall clock, median of {options.turns}; pytorch-maml-rl: {RIVAL} s"
    rounded = {name: round(seconds, 4) for name, seconds in parts.items()}
    write_rows("rl_speed", [{"data": "navigation2d", "protocol": protocol, "seed": 0, **told, "parts": rounded}])


if __name__ == "__main__":
    main()
