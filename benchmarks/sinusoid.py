"""Sinusoid regression: MAML beside pretraining and the oracle, the two baselines of the paper, and its figure.

Finn, Abbeel, Levine 2017, "Model-agnostic meta-learning", section 5.1 and table 2. Training as in the paper: 10 points a
task, 25 tasks a step, 70,000 steps of Adam with 1e-3, one inner step of 0.01, an MLP of two hidden layers of 40. The
weights with the best validation score are judged once on the test tasks, after 1, 5 and 10 gradient steps on 5 points.

    python benchmarks/sinusoid.py --seed 0
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from kshot.allocator import keep_freed_memory
from kshot.checkpoint import load_learner, save_learner
from kshot.cli.report import wave_panels
from kshot.core import Learner
from kshot.evaluation import Evaluation, evaluate
from kshot.learners.gradient import MAML
from kshot.losses import mean_squared_error
from kshot.nets.mlp import MLP
from kshot.progress import show_progress
from kshot.report.figures import save_wave_figure
from kshot.tasks.sinusoid import KnownSinusoids, Sinusoids
from kshot.tasks.source import TaskSource
from kshot.training import train
from rows import result_row, write_rows

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
PUBLISHED = {"MAML": {1: 0.67, 5: 0.38, 10: 0.35}, "pretrained": {1: 2.41, 5: 2.23, 10: 2.19}}
STEP_SIZES = (0.0003, 0.001, 0.003, 0.01, 0.03)  # for fine-tuning the pretrained net; chosen on validation tasks


def maml(net: torch.nn.Module, lr: float, steps: int) -> MAML:
    return MAML(net, lr, steps, loss=mean_squared_error)


def trained(name: str, learner: MAML, source: type[Sinusoids], seed: int, steps: int, out: Path) -> float:
    """Train with the paper's budget, or load what an earlier call trained; return the seconds it took."""
    path, clock = (out / f"{name}-{steps}-steps-{seed}.{kind}" for kind in ("safetensors", "seconds"))
    if path.exists():
        load_learner(path, learner)
        return float(clock.read_text())
    validation = source(shots=10, queries=50, seed=1, length=1000)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    with show_progress(name) as watch:
        result = train(
            learner,
            source(shots=10, queries=10, seed=1000 + seed),
            steps=steps,
            tasks_per_step=25,
            optimizer=optimizer,
            validation=validation,
            every=1000,
            seed=seed,
            watch=watch,
        )
    save_learner(path, learner)
    clock.write_text(str(result.seconds))
    return result.seconds


def best_step_size(learner_of: Callable[[float], Learner], sizes: Sequence[float]) -> float:
    """Choose the inner step size of a learner on validation tasks; what diverges is the worst."""
    tasks = Sinusoids(shots=5, queries=50, seed=1, length=1000)
    errors = {lr: evaluate(learner_of(lr), tasks, 100).mean for lr in sizes}
    return min(sizes, key=lambda lr: errors[lr] if math.isfinite(errors[lr]) else math.inf)


def fresh_tasks(source: type[Sinusoids] = Sinusoids) -> TaskSource:
    return source(shots=5, queries=100, seed=2, length=2000)


def main() -> None:
    """Train the three nets, judge them, and write rows and weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=70_000)
    parser.add_argument("--out", type=Path, default=Path("runs/sinusoid"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    torch.set_num_threads(1)  # the net is too small for more
    torch.manual_seed(options.seed)
    # Pretraining on all tasks is MAML without inner steps: one net for every wave.
    nets = {name: MLP(width, 40, 40, 1) for name, width in (("MAML", 1), ("pretrained", 1), ("oracle", 3))}
    starts = {"MAML": maml(nets["MAML"], 0.01, 1), "pretrained": maml(nets["pretrained"], 0.0, 0)}
    starts["oracle"] = maml(nets["oracle"], 0.0, 0)
    sources = {"MAML": Sinusoids, "pretrained": Sinusoids, "oracle": KnownSinusoids}
    seconds = {
        name: trained(name, learner, sources[name], options.seed, options.steps, options.out)
        for name, learner in starts.items()
    }
    rates = {"MAML": 0.01, "pretrained": best_step_size(lambda lr: maml(nets["pretrained"], lr, 10), STEP_SIZES)}
    rows = []

    def add(name: str, steps: int, result: Evaluation, published: float | None) -> None:
        print(f"{name}, {steps} steps: {result}")
        more = {"learner": name, "ways": None, "shots": 5, "gradient_steps": steps, "published": published}
        rows.append(result_row(result, **more, seed=options.seed, seconds=round(seconds[name])))

    for name, rate in rates.items():
        for steps, published in PUBLISHED[name].items():
            add(name, steps, evaluate(maml(nets[name], rate, steps), fresh_tasks(), 100), published)
    add("oracle", 0, evaluate(starts["oracle"], fresh_tasks(KnownSinusoids), 100), None)
    write_rows("sinusoid", rows)
    tuned = {"MAML": maml(nets["MAML"], 0.01, 1), "pretrained": maml(nets["pretrained"], rates["pretrained"], 1)}
    save_wave_figure(FIGURES, "sinusoid", wave_panels(tuned, (0, 1, 10)))


if __name__ == "__main__":
    main()
