"""From options to learners and tasks: the one place that knows the defaults of the command line."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR

from kshot.checkpoint import load_learner
from kshot.cli.build_gradient import build_maml, build_proto_maml, build_reptile
from kshot.cli.build_memory import build_in_context, build_recurrent, build_snail
from kshot.cli.features import features_of
from kshot.cli.learner_options import (
    DATA,
    Distance,
    InContextOptions,
    LearnerOptions,
    MAMLOptions,
    MatchingOptions,
    MemoryOptions,
    MetricOptions,
    ProtoMAMLOptions,
    PrototypicalOptions,
    RecurrentOptions,
    RelationOptions,
    ReptileOptions,
    RidgeOptions,
    SiameseOptions,
    SNAILOptions,
)
from kshot.cli.run_config import learner_name
from kshot.clipping import clip_norm, clip_value
from kshot.core import Learner
from kshot.learners.gradient import Ridge
from kshot.learners.metric import FullContext, Matching, Prototypical, Relation, Siamese, WeightedL1, distances
from kshot.learners.metric.siamese import contrastive, n_pair, triplet, verification
from kshot.nets.conv import Conv4
from kshot.nets.norm import BatchStatisticsNorm, group_norm
from kshot.nets.relation import relation_encoder, relation_score
from kshot.tasks.augment import Distortions
from kshot.tasks.episodes import Episodes
from kshot.tasks.glyphs import glyphs
from kshot.tasks.labelled import LabelledData, Splits, check_disjoint
from kshot.tasks.miniimagenet import miniimagenet
from kshot.tasks.omniglot import Resize, omniglot
from kshot.tasks.omniglot_protocols import ProtocolName
from kshot.tasks.sinusoid import Sinusoids
from kshot.tasks.source import TaskSource
from kshot.tasks.strings import StringLabels
from kshot.tasks.variable_ways import VariableWays

__all__ = ["Split", "build_learner", "build_optimizer", "fixed_tasks", "load_best", "load_splits", "training_tasks"]

Split: TypeAlias = Literal["train", "val", "test"]

_DISTANCES: dict[Distance, distances.Distance] = {
    "squared-euclidean": distances.squared_euclidean,
    "euclidean": distances.euclidean,
    "manhattan": distances.manhattan,
    "cosine": distances.cosine,
}

# Fixed tasks have seeds of their own, so that no training run sees them and all runs are judged on the same ones.
_SEEDS: dict[Split, int] = {"train": 1_000, "val": 1, "test": 2}


def load_splits(options: LearnerOptions) -> Splits:
    """Load the labelled data that the options name.

    Raises:
        ValueError: there is no such data set or folder.
    """
    return _load(options.data, options.protocol, options.resize)


def picture_of(options: LearnerOptions) -> torch.Size | None:
    """Return the shape of the pictures that the options name; sine waves have none."""
    return None if options.data == "sinusoid" else load_splits(options).train.x.shape[1:]


@functools.cache  # by what decides the data alone, so that runs compared with each other share it
def _load(data: str, protocol: ProtocolName, resize: Resize) -> Splits:
    match data:
        case "glyphs":
            return Splits(glyphs("train"), glyphs("val"), glyphs("test"))
        case "omniglot":
            return omniglot(protocol, resize)
        case "miniimagenet":
            return miniimagenet()
        case name if Path(name).is_dir():
            return _folder_splits(Path(name))
        case name:
            raise ValueError(f"--data must be one of {', '.join(DATA)}, or a folder of class folders; found {name!r}.")


def _folder_splits(folder: Path) -> Splits:
    parts = [folder / name for name in ("train", "val", "test")]
    if all(part.is_dir() for part in parts):
        return check_disjoint(Splits(*map(LabelledData.from_folder, parts)))
    return LabelledData.from_folder(folder).split()


def training_tasks(options: LearnerOptions) -> TaskSource:
    """Return the stream of training tasks."""
    seed = _SEEDS["train"] + options.seed
    shots = _shots(options)
    if options.data == "sinusoid":
        return Sinusoids(shots, _train_queries(options), seed)
    data, val, _ = load_splits(options)
    if options.with_val:
        data = data.joined(val, split=f"{data.stamp.get('split', 'train')}, with val")
    if options.mirror:
        data = data.with_mirrored_classes()
    ways, queries = options.ways, _train_queries(options)
    if isinstance(options, MetricOptions):
        turns = 4 if data.rotations == "classes" else 1
        ways = min(options.train_ways, turns * len(data.classes))
    augment = Distortions() if options.distort else None
    fewest, group = _fewest_ways(options), options.tasks_per_step
    uneven = isinstance(options, RecurrentOptions) and options.uneven
    tasks: Episodes | VariableWays
    if fewest is None:
        tasks = Episodes(data, ways, shots, queries, seed, augment=augment, uneven=uneven)
    else:
        tasks = VariableWays(data, (fewest, ways), shots, queries, seed, group=group, augment=augment, uneven=uneven)
    return _labelled(options, tasks, dealt=uneven)


def fixed_tasks(
    options: LearnerOptions,
    split: Split,
    length: int,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
) -> TaskSource:
    """Return the fixed tasks of a split; they do not depend on the seed of the run."""
    shots = _shots(options) if shots is None else shots
    queries = options.queries if queries is None else queries
    if options.data == "sinusoid":
        return Sinusoids(shots, queries, _SEEDS[split], length)
    data = getattr(load_splits(options), split)
    ways = options.ways if ways is None else ways
    return _labelled(options, Episodes(data, ways, shots, queries, _SEEDS[split], length))


def _fewest_ways(options: LearnerOptions) -> int | None:
    match options:
        case InContextOptions():
            return 2
        case RecurrentOptions(fewest_ways=int(), labels="one-hot"):
            raise ValueError("--fewest-ways needs --labels strings: one-hot rows build the number of classes in.")
        case RecurrentOptions():
            return options.fewest_ways
    return None


def _labelled(options: LearnerOptions, tasks: Episodes | VariableWays, *, dealt: bool = False) -> TaskSource:
    """Return the tasks with labels of the kind that the options name."""
    return (
        StringLabels(tasks, dealt=dealt)
        if isinstance(options, RecurrentOptions) and options.labels == "strings"
        else tasks
    )


def build_learner(
    options: LearnerOptions, inner_steps: int | None = None, picture: torch.Size | None = None
) -> Learner:
    """Build the learner with its starting weights, which depend on the seed.

    Args:
        options: what the run was told.
        inner_steps: gradient steps at test time; as in validation by default.
        picture: the shape of its pictures, by default that of its data.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        name, waves = learner_name(options), options.data == "sinusoid"
        if waves and not isinstance(options, MAMLOptions):
            raise ValueError(f"{name} classifies, and sinusoid is regression. Use: kshot train maml --data sinusoid")
        picture = picture_of(options) if picture is None else picture
        match options:
            case MAMLOptions():
                return build_maml(options, picture, inner_steps)
        assert picture is not None
        match options:
            case ReptileOptions():
                return build_reptile(options, picture, inner_steps)
            case ProtoMAMLOptions():
                return build_proto_maml(options, picture[0], inner_steps)
            case MetricOptions() | MemoryOptions() if inner_steps is not None:
                raise ValueError(f"{name} takes no gradient steps; leave --inner-steps out.")
            case InContextOptions():
                return build_in_context(options, picture)
            case MetricOptions():
                return _build_metric(options, picture)
            case RecurrentOptions():
                return build_recurrent(options, picture)
            case SNAILOptions():
                return build_snail(options, picture)
    raise TypeError(f"no learner for {type(options).__name__}")


def _build_metric(options: MetricOptions, picture: torch.Size) -> Learner:
    channels, pixels, _ = picture
    if isinstance(options, RelationOptions):
        norm = BatchStatisticsNorm if options.batch_statistics else group_norm
        score = relation_score(options.filters, pixels // 4, norm=norm)
        encoder = relation_encoder(channels, options.filters)
        return Relation(encoder, score, transductive=options.batch_statistics)
    encoder = Conv4(channels, options.filters)
    match options:
        case RidgeOptions():
            return Ridge(encoder)
        case PrototypicalOptions():
            return Prototypical(encoder, distance=_DISTANCES[options.distance])
        case MatchingOptions():
            context = FullContext(features_of(encoder, picture)) if options.full_context else None
            temperature: float | Literal["learned"] = "learned" if options.learn_temperature else 1.0
            return Matching(encoder, distance=_DISTANCES[options.distance], temperature=temperature, context=context)
        case SiameseOptions(pair_loss="verification"):
            return Siamese(encoder, WeightedL1(features_of(encoder, picture)), verification)
        case SiameseOptions(pair_loss="n-pair"):
            return Siamese(encoder, distances.squared_euclidean, n_pair)
        case SiameseOptions(pair_loss=name):
            return Siamese(encoder, distances.euclidean, (contrastive if name == "contrastive" else triplet)(1.0))
    raise TypeError(f"no learner for {type(options).__name__}")


def load_best(
    run: Path, options: LearnerOptions, inner_steps: int | None = None, picture: torch.Size | None = None
) -> Learner:
    """Return the best learner of a run that was told these options.

    Raises:
        ValueError: its checkpoint is damaged or of another learner.
        OSError: it has none.
    """
    learner = build_learner(options, inner_steps, picture)
    load_learner(run / "best.safetensors", learner)
    return learner


def build_optimizer(options: LearnerOptions, learner: Learner) -> tuple[Optimizer, LRScheduler | None]:
    """Build the outer loop's optimizer, and its schedule where it has one.

    Raises:
        ValueError: a cosine has no length.
    """
    if isinstance(options, ReptileOptions):
        descent = torch.optim.SGD(learner.parameters(), options.lr)
        return descent, None if options.steps is None else _falling(descent, options.steps, lambda left: left)
    optimizer = torch.optim.Adam(learner.parameters(), options.lr)
    if isinstance(options, MemoryOptions):
        clip_norm(optimizer, 1.0)
    if isinstance(options, MetricOptions | MemoryOptions):
        return optimizer, StepLR(optimizer, options.halve_every, 0.5)
    if not isinstance(options, MAMLOptions):
        return optimizer, None
    if options.clip is not None:
        clip_value(optimizer, options.clip)
    if not options.cosine:
        return optimizer, None
    if options.steps is None:
        raise ValueError("--cosine needs --steps, over which the learning rate falls.")
    least = 1e-5 / options.lr
    return optimizer, _falling(
        optimizer, options.steps, lambda left: least + (1 - least) * (1 - math.cos(math.pi * left)) / 2
    )


def _falling(optimizer: Optimizer, steps: int, factor: Callable[[float], float]) -> LRScheduler:
    """Multiply the learning rate by a function of the share of steps that is left, 1 to 0."""
    # A schedule of a function is saved without it, so that a resumed run falls over its new number of steps.
    return LambdaLR(optimizer, lambda step: factor(max(0.0, 1 - step / steps)))


def _shots(options: LearnerOptions) -> int:
    if options.shots is not None:
        return options.shots
    return 10 if options.data == "sinusoid" else 1


def _train_queries(options: LearnerOptions) -> int:
    match options:
        case MetricOptions() | MemoryOptions():
            return options.train_queries
        case MAMLOptions(train_queries=int(queries)):
            return queries
        case ReptileOptions():  # it trains on support and query examples alike
            if options.train_shots <= _shots(options):
                raise ValueError(
                    f"--train-shots must be above --shots, {_shots(options)}; found {options.train_shots}."
                )
            return options.train_shots - _shots(options)
    return _shots(options)
