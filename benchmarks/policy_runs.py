"""What benchmarks of policies share: training into a folder that a broken run goes on from."""

from pathlib import Path

from kshot.checkpoint import load_checkpoint
from kshot.progress import show_progress
from kshot.rl.environments.base import Environment
from kshot.rl.gradient_learner import GradientPolicyLearner, Setting
from kshot.rl.training import train_policy


def trained(
    folder: Path,
    learner: GradientPolicyLearner,
    environment: Environment,
    setting: Setting,
    *,
    steps: int,
    minutes: float,
    seed: int,
    every: int = 10,
) -> dict[str, float]:
    """Train until the budget is spent, going on with what the folder holds, and load the best weights.

    Returns:
        Steps and seconds spent, and the best score of validation.
    """
    last = folder / "last.safetensors"
    done = load_checkpoint(last)["position"] if last.exists() else {"step": 0, "seconds": 0.0}
    if done["step"] < steps and done["seconds"] < 60 * minutes:
        with show_progress(folder.name) as watch:
            run = {"out": folder, "resume": last.exists(), "seed": seed, "watch": watch, "every": every}
            train_policy(learner, environment, setting, steps=steps, minutes=minutes, **run)
    learner.policy.load_state_dict(load_checkpoint(folder / "best.safetensors")["learner"])
    position: dict[str, float] = load_checkpoint(last)["position"]
    return position
