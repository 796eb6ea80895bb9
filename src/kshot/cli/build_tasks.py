"""From options to data and tasks."""

import functools
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from kshot.cli.learner_options import (
    DATA,
    ClassifierOptions,
    InContextOptions,
    LearnerOptions,
    MAMLOptions,
    MemoryOptions,
    MetricOptions,
    RecurrentOptions,
    ReptileOptions,
)
from kshot.tasks.augment import Augment, Crops, Distortions
from kshot.tasks.episodes import Episodes
from kshot.tasks.glyphs import glyphs
from kshot.tasks.labelled import LabelledData, Splits, check_disjoint
from kshot.tasks.minibatches import Minibatches
from kshot.tasks.miniimagenet import miniimagenet
from kshot.tasks.omniglot import Resize, omniglot
from kshot.tasks.omniglot_protocols import ProtocolName
from kshot.tasks.sinusoid import Sinusoids
from kshot.tasks.source import TaskSource
from kshot.tasks.strings import StringLabels
from kshot.tasks.variable_ways import VariableWays

__all__ = ["fixed_tasks", "picture_of", "training_tasks"]

Split: TypeAlias = Literal["train", "val", "test"]

# Fixed tasks have seeds of their own, so that no training run sees them and all runs are judged on the same ones.
_SEEDS: dict[Split, int] = {"train": 1_000, "val": 1, "test": 2}


def _load_splits(options: LearnerOptions) -> Splits:
    """Load the labelled data that the options name.

    Raises:
        ValueError: there is no such data set or folder.
    """
    return _load(options.data, options.protocol, options.resize)


def picture_of(options: LearnerOptions) -> torch.Size | None:
    """Return the shape of the pictures that the options name; sine waves have none."""
    return None if options.data == "sinusoid" else _load_splits(options).train.x.shape[1:]


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
    data, val, _ = _load_splits(options)
    if options.with_val:
        data = data.joined(val, split=f"{data.stamp.get('split', 'train')}, with val")
    if options.mirror:
        data = data.with_mirrored_classes()
    augment = _augment(options)
    if isinstance(options, ClassifierOptions):
        return Minibatches(data, options.batch, seed, augment=augment)
    ways, queries = options.ways, _train_queries(options)
    if isinstance(options, MetricOptions):
        turns = 4 if data.rotations == "classes" else 1
        ways = min(options.train_ways, turns * len(data.classes))
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
    data = getattr(_load_splits(options), split)
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


def _augment(options: LearnerOptions) -> Augment | None:
    if options.crop and options.distort:
        raise ValueError("--crop and --distort each make new pictures of old ones; found both. Leave one out.")
    if options.crop:
        return Crops(mirror=True)
    return Distortions() if options.distort else None


def _labelled(options: LearnerOptions, tasks: Episodes | VariableWays, *, dealt: bool = False) -> TaskSource:
    """Return the tasks with labels of the kind that the options name."""
    return (
        StringLabels(tasks, dealt=dealt)
        if isinstance(options, RecurrentOptions) and options.labels == "strings"
        else tasks
    )


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
