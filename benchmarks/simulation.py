"""How fast half-cheetahs are simulated: all in one call of MuJoCo, beside Gymnasium's SyncVectorEnv, in turns.

The environment of kshot with two threads and with one, and 40 of Gymnasium's in one process, take the same actions, one
physical step each (frame skip 1). Medians over turns.

    python benchmarks/simulation.py
"""

import argparse
import statistics
import time
from collections.abc import Callable

import gymnasium
import numpy as np
import torch

from kshot.rl.environments.half_cheetah import HalfCheetahVel
from rows import write_rows

TASKS, TRAJECTORIES, STEPS, RIVALS = 40, 20, 50, 40


def ours(threads: int) -> Callable[[], float]:
    """Return what simulates a stretch and gives its steps a second."""
    env, generator = HalfCheetahVel(frame_skip=1, threads=threads), torch.Generator().manual_seed(0)
    tasks = env.draw_tasks(0, np.arange(TASKS))
    actions = torch.rand(STEPS, TASKS, TRAJECTORIES, 6, generator=generator) * 2 - 1

    def run() -> float:
        state, _ = env.reset(tasks, TRAJECTORIES, generator)
        start = time.perf_counter()
        for action in actions:
            state = env.step(tasks, state, action, generator).state
        return STEPS * TASKS * TRAJECTORIES / (time.perf_counter() - start)

    return run


def theirs() -> Callable[[], float]:
    env = gymnasium.make_vec("HalfCheetah-v5", num_envs=RIVALS, vectorization_mode="sync", frame_skip=1)
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, RIVALS, 6)).astype(np.float32)

    def run() -> float:
        env.reset(seed=0)
        start = time.perf_counter()
        for action in actions:
            env.step(action)
        return STEPS * RIVALS / (time.perf_counter() - start)

    return run


def main() -> None:
    """Time all of them in turns, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = {"kshot, 2 threads": ours(2), "kshot, 1 thread": ours(1), "SyncVectorEnv": theirs()}
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.turns):
        for name, run in runs.items():
            speeds[name].append(run())
    rows = []
    for name, of_name in speeds.items():
        value, ratio = statistics.median(of_name), statistics.median(map(np.divide, of_name, speeds["SyncVectorEnv"]))
        print(f"{name}: {value:,.0f} steps a second, {ratio:.1f} times SyncVectorEnv")
        told = {"learner": name, "metric": "steps a second", "value": value, "ratio": float(ratio)}
        protocol = f"half-cheetah, frame skip 1, median of {options.turns} turns"
        rows.append({"data": "half-cheetah", "protocol": protocol, "seed": 0, "seconds": 0, **told})
    write_rows("simulation", rows)


if __name__ == "__main__":
    main()
