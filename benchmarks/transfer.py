"""Meta-learning against transfer: one Conv4, the same minutes, the same tasks of unseen classes, compared in pairs.

Prototypical networks are meta-trained on tasks. Beside them the same net learns to tell all training classes apart, and is
used on a new task by its nearest class mean, with embeddings as they are or centred and normalised (SimpleShot), by a
linear probe, or by fine-tuning its head or all of it; and all of it from random weights, which is no transfer. Validation
tasks choose the best weights of both nets, and the penalty and step sizes of those that adapt. Both see the same
augmented pictures where it is asked for.

    python benchmarks/transfer.py --data omniglot --minutes 20 --out runs/transfer
    python benchmarks/transfer.py --data miniimagenet --shots 5 --minutes 60 --augment --out runs/transfer
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kshot.allocator import keep_freed_memory
from kshot.checkpoint import load_checkpoint
from kshot.core import Learner
from kshot.evaluation import Evaluation, compare, evaluate
from kshot.learners.metric import Prototypical
from kshot.learners.transfer import Classifier, FineTune, LinearProbe
from kshot.nets.conv import Conv4
from kshot.nets.features import CentreAndNormalise
from kshot.progress import show_progress
from kshot.tasks.augment import Crops
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import LabelledData, Splits
from kshot.tasks.minibatches import Minibatches
from kshot.tasks.miniimagenet import miniimagenet
from kshot.tasks.omniglot import omniglot
from kshot.tasks.source import TaskSource
from kshot.training import train
from rows import result_row, write_rows

FEATURES = {"omniglot": (1, 64), "miniimagenet": (3, 1600)}  # channels, and size of an embedding
TRAIN_WAYS = {"omniglot": 60, "miniimagenet": 20}
PENALTIES = (0.01, 0.1, 1.0, 10.0)
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)


def splits(options: argparse.Namespace) -> Splits:
    return omniglot("vinyals", "antialiased") if options.data == "omniglot" else miniimagenet()


def trained(name: str, learner: Learner, tasks: TaskSource, validation: TaskSource, options: argparse.Namespace) -> int:
    """Train into a folder, going on with what it holds, for so many minutes; return the steps."""
    out = options.out / f"{options.data}-{options.shots}-shot-{options.minutes:g}-min-seed{options.seed}" / name
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    with show_progress(name) as watch:
        train(
            learner,
            tasks,
            minutes=options.minutes,
            tasks_per_step=1,
            optimizer=optimizer,
            scheduler=torch.optim.lr_scheduler.StepLR(optimizer, options.halve_every, 0.5),
            validation=validation,
            every=options.every,
            out=out,
            resume=(out / "last.safetensors").exists(),
            seed=options.seed,
            watch=watch,
        )
    steps: int = load_checkpoint(out / "last.safetensors")["position"]["step"]
    return steps


def judged(learner: Learner, tasks: TaskSource) -> Evaluation:
    # Convolutions with other weights for every task are 2.7 times as fast one task at a time on a CPU.
    # Four tasks of miniImageNet are 400 pictures, whose first activations take 0.7 GB.
    return evaluate(learner, tasks, tasks_per_batch=4, chunk_size=1 if isinstance(learner, FineTune) else None)


def chosen(name: str, learners: Sequence[Learner], validation: TaskSource) -> Learner:
    """Return the learner that does best on validation tasks."""
    results = [judged(learner, validation).mean for learner in learners]
    print(
        f"  {name}, chosen on {len(validation)} validation tasks: {', '.join(f'{100 * result:.1f}' for result in results)}",
        flush=True,
    )
    return learners[results.index(max(results))]


def scaled(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x


def tuned(body: nn.Module, depth: str, rates: Sequence[float], validation: TaskSource, name: str) -> Learner:
    """Choose the step size of fine-tuning."""
    settings = [FineTune(body, rate, 50, "head" if depth == "head" else "all") for rate in rates]
    return chosen(name, settings, validation)


def adapting(
    encoder: nn.Module, start: nn.Module, data: LabelledData, few: TaskSource, rates: Sequence[float]
) -> dict[str, Learner]:
    """Return the ways in which the pretrained encoder is used, each chosen on validation tasks."""
    start.train()
    for i in range(0, 20 * 64, 64):  # so that normalisation at least knows the pictures
        start(scaled(data.x[i : i + 64]))
    start.eval()
    examples = data.x[:: max(1, len(data.x) // 5000)]
    mean = CentreAndNormalise.mean_of(encoder, scaled(examples))
    probes = [LinearProbe(encoder, penalty=penalty) for penalty in PENALTIES]
    return {
        "pretrained, nearest mean": Prototypical(encoder),
        "pretrained, nearest mean, centred and normalised": Prototypical(
            nn.Sequential(encoder, CentreAndNormalise(mean))
        ),
        "pretrained, linear probe": chosen("linear probe", probes, few),
        "pretrained, head fine-tuned": tuned(encoder, "head", rates, few, "head"),
        "pretrained, all fine-tuned": tuned(encoder, "all", rates, few, "all"),
        "random weights, all fine-tuned": tuned(start, "all", rates, few, "all from random weights"),
    }


def main() -> None:
    """Train both nets, judge all ways in pairs on the same test tasks, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=tuple(FEATURES), default="omniglot")
    parser.add_argument("--minutes", type=float, required=True, help="of training, for each of the two nets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--augment", action="store_true", help="crops and mirror images, for both")
    parser.add_argument("--batch", type=int, default=256, help="size of a minibatch in pretraining")
    parser.add_argument("--halve-every", type=int, default=2000)
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--tuned-tasks", type=int, default=200, help="the first of the tasks, for what is fine-tuned")
    parser.add_argument("--choice", type=int, default=40, help="validation tasks that choose penalties and step sizes")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="step sizes to choose from")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(options.seed)
    (channels, features), data = FEATURES[options.data], splits(options)
    start = Conv4(channels)
    augment = Crops(0.5, mirror=options.data == "miniimagenet") if options.augment else None
    ways, shots = TRAIN_WAYS[options.data], options.shots
    validation = Episodes(data.val, 5, shots, length=200, seed=1)
    few = Episodes(data.val, 5, shots, length=options.choice, seed=3)
    meta = Prototypical(copy.deepcopy(start))
    tasks = Episodes(data.train, ways, shots, 5, 1000 + options.seed, augment=augment)
    steps = {"random weights": 0, "meta": trained("prototypical", meta, tasks, validation, options)}
    minibatches = Minibatches(data.train, options.batch, 1000 + options.seed, augment=augment)
    classifier = Classifier(Prototypical(copy.deepcopy(start)), nn.Linear(features, minibatches.ways))
    steps["pretrained"] = trained("classifier", classifier, minibatches, validation, options)
    encoder = classifier.learner.get_submodule("encoder")
    learners = {"Prototypical, meta-trained": meta, **adapting(encoder, start, data.train, few, options.rates)}
    rows = []
    all_tasks = judged(meta, Episodes(data.test, 5, shots, length=options.tasks, seed=2))
    for name, learner in learners.items():
        kind = "meta" if learner is meta else name.split(",")[0]
        count = min(options.tasks, options.tuned_tasks if isinstance(learner, FineTune) else options.tasks)
        result = judged(learner, Episodes(data.test, 5, shots, length=count, seed=2))
        paired = compare(result, replace(all_tasks, scores=all_tasks.scores[:count]))
        print(f"{name}: {result.short()}; to meta-training {paired}", flush=True)
        rows.append(
            result_row(
                result,
                learner=name,
                ways=5,
                shots=shots,
                published=None,
                difference=paired.difference,
                difference_ci95=paired.ci95,
                seed=options.seed,
                seconds=round(60 * options.minutes) if steps[kind] else 0,
                steps=steps[kind],
                augmented=options.augment,
                selected=f"best weights on 200 validation tasks, settings on {options.choice}",
                setting={"lr": getattr(learner, "lr", None), "penalty": getattr(learner, "penalty", None)},
            )
        )
    write_rows("transfer", rows)


if __name__ == "__main__":
    main()
