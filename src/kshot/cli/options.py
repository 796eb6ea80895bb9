"""What can be said on the command line. Nothing here imports torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from tyro.conf import OmitSubcommandPrefixes, Positional, subcommand

__all__ = [
    "Command",
    "Compare",
    "Data",
    "Demo",
    "Distance",
    "Doctor",
    "Eval",
    "LearnerOptions",
    "MAMLOptions",
    "MatchingOptions",
    "MetricOptions",
    "Paper",
    "ProtoMAMLOptions",
    "PrototypicalOptions",
    "RelationOptions",
    "ReptileOptions",
    "Resume",
    "RidgeOptions",
    "SiameseOptions",
    "Train",
]


@dataclass(frozen=True, kw_only=True)
class LearnerOptions:
    """What every training run is told."""

    data: str = "glyphs"
    """glyphs, omniglot, miniimagenet, sinusoid, or a folder with one folder of pictures for each class (or with such
    folders under train/, val/ and test/)."""
    protocol: Literal["vinyals", "finn", "reptile", "relation", "mamlpp", "mann", "koch", "lake"] = "vinyals"
    """Whose protocol for Omniglot: classes, rotations, picture size."""
    resize: Literal["nearest", "antialiased"] = "nearest"
    """How Omniglot's pictures are made small."""
    distort: bool = False
    """Distort training pictures a little, each another way (Koch et al. 2015)."""
    mirror: bool = False
    """Let the mirror image of every training class be a class of its own."""
    ways: int = 5
    """Classes in a task."""
    shots: int | None = None
    """Labelled examples of each class: 1 by default, 10 for sinusoid."""
    queries: int = 15
    """Query examples of each class in validation tasks."""
    minutes: float | None = None
    """Training budget, validation included; 3 by default, unless steps are given."""
    steps: int | None = None
    """Training budget in optimizer steps; the first budget used up ends the run."""
    lr: float = 1e-3
    """Learning rate of Adam, the outer loop."""
    filters: int = 64
    """Filters in each block of the convolutional net."""
    compile: bool = False
    """Compile what a step does to tasks: minutes at first, then several times as fast where nets are small."""
    every: int = 250
    """Steps between validations."""
    with_val: bool = False
    """Train on the validation classes too, as papers do for a final figure; then the last weights are the best."""
    val_tasks: int = 200
    """Fixed validation tasks; they choose the best weights."""
    patience: int | None = None
    """Validations without improvement before the run ends."""
    seed: int = 0
    """Of the weights and of the training tasks."""
    out: Path | None = None
    """Folder of the run; runs/LEARNER-DATA by default."""


Distance: TypeAlias = Literal["squared-euclidean", "euclidean", "manhattan", "cosine"]


@dataclass(frozen=True, kw_only=True)
class MetricOptions(LearnerOptions):
    """What every run of a learner that takes any number of classes is told."""

    train_ways: int = 60
    """Classes in a training task, or all there are; more than at test time helps."""
    train_queries: int = 5
    """Query examples of each class in a training task."""
    tasks_per_step: int = 1
    """Tasks in a meta-batch."""
    halve_every: int = 2000
    """Steps after which the learning rate halves."""


@dataclass(frozen=True, kw_only=True)
class PrototypicalOptions(MetricOptions):
    """Prototypical networks (Snell et al. 2017): the nearest class mean in a learned embedding."""

    distance: Distance = "squared-euclidean"
    """Between a query and a class mean."""


@dataclass(frozen=True, kw_only=True)
class MatchingOptions(MetricOptions):
    """Matching networks (Vinyals et al. 2016): attention over the support set."""

    distance: Distance = "cosine"
    """Between a query and a support example."""
    learn_temperature: bool = False
    """Learn how sharp attention is."""
    full_context: bool = False
    """Embed each example in the light of the whole support set."""


@dataclass(frozen=True, kw_only=True)
class SiameseOptions(MetricOptions):
    """Siamese networks (Koch et al. 2015): of one class or not, and the class of the best pair."""

    pair_loss: Literal["verification", "contrastive", "triplet", "n-pair"] = "verification"
    """What pairs are trained by: contrastive and triplet on Euclidean distances, margin 1; n-pair on squared ones."""


@dataclass(frozen=True, kw_only=True)
class RelationOptions(MetricOptions):
    """Relation networks (Sung et al. 2018): a learned comparison of maps."""

    batch_statistics: bool = False
    """Normalise comparisons by the queries at hand, as the paper's code does: transductive."""


@dataclass(frozen=True, kw_only=True)
class RidgeOptions(MetricOptions):
    """R2-D2 (Bertinetto et al. 2019): ridge regression on a learned embedding, in closed form."""


@dataclass(frozen=True, kw_only=True)
class ProtoMAMLOptions(MetricOptions):
    """Proto-MAML (Triantafillou et al. 2020): gradient steps from the classifier that class means give."""

    inner_lr: float = 0.1
    """Inner step size for the mean loss."""
    inner_steps: int = 1
    """Gradient steps on the support set."""


Paper: TypeAlias = Literal[
    "finn2017", "li2017", "antoniou2019", "rajeswaran2019", "zintgraf2019", "raghu2020", "oh2021"
]


@dataclass(frozen=True, kw_only=True)
class MAMLOptions(LearnerOptions):
    """MAML (Finn et al. 2017): weights from which a few gradient steps solve a new task."""

    preset: Paper | None = None
    """A paper's settings for whatever is not said: finn2017 is MAML, li2017 Meta-SGD, antoniou2019 MAML++, rajeswaran2019
    iMAML, zintgraf2019 CAVIA, raghu2020 ANIL, oh2021 BOIL."""
    net: Literal["strided", "pooled", "connected"] = "strided"
    """For pictures: four convolutions of stride 2, or with max-pooling, or four linear layers."""
    inner_lr: float | None = None
    """Inner step size for the mean loss: 0.4 by default, 0.01 for sinusoid."""
    inner_steps: int = 1
    """Gradient steps on the support set."""
    test_steps: int | None = None
    """The same in validation and at test time; as in training by default."""
    differentiate: Literal["mixed", "reverse", "first_order", "implicit"] = "mixed"
    """How the meta-gradient passes the inner steps: exactly by mixed or reverse mode, in first order, or implicitly."""
    proximity: float = 2.0
    """For implicit, how strongly adapted weights are drawn to the start."""
    adapts: Literal["all", "head", "body", "context"] = "all"
    """What the inner loop adapts: all weights, the last layer (the body then runs once), all but it, or 5 (pictures: 100)
    numbers that steer the net."""
    learn_lr: Literal["per_parameter", "per_layer_per_step"] | None = None
    """Meta-learn the inner step sizes."""
    per_step_norm: bool = False
    """A scale and shift of the normalisation for each inner step."""
    multi_step: float = 0.0
    """For this share of training, judge the queries after every inner step."""
    first_order_until: float = 0.0
    """For this share of training, leave second derivatives out."""
    cosine: bool = False
    """Let the outer learning rate fall to 1e-5 over --steps, along a cosine."""
    clip: float | None = None
    """Clip each element of the meta-gradient to this magnitude."""
    train_queries: int | None = None
    """Query examples of each class in a training task: as many as shots by default."""
    tasks_per_step: int = 32
    """Tasks in a meta-batch."""


@dataclass(frozen=True, kw_only=True)
class ReptileOptions(LearnerOptions):
    """Reptile (Nichol et al. 2018): move the start towards where training on a task ends."""

    preset: Literal["nichol2018"] | None = None
    """The paper's settings for whatever is not said."""
    net: Literal["strided", "pooled"] = "strided"
    """Four convolutions of stride 2, or with max-pooling."""
    transductive: bool = False
    """Normalise queries by the queries at hand, instead of by the support set."""
    train_shots: int = 10
    """Examples of each class in a training task."""
    inner_lr: float = 1e-3
    """Step size of Adam, the inner loop."""
    inner_steps: int = 5
    """Inner steps on a training task."""
    batch_size: int = 10
    """Examples in one of them."""
    test_steps: int = 50
    """Inner steps in validation and at test time, each on the whole support set."""
    tasks_per_step: int = 5
    """Tasks in a meta-batch."""
    lr: float = 1.0
    """Step size of the outer loop, which falls to zero over --steps; constant where only minutes are given."""


@dataclass(frozen=True)
class Train:
    """Meta-train a learner into a run folder."""

    learner: OmitSubcommandPrefixes[
        Annotated[PrototypicalOptions, subcommand("prototypical")]
        | Annotated[MatchingOptions, subcommand("matching")]
        | Annotated[SiameseOptions, subcommand("siamese")]
        | Annotated[RelationOptions, subcommand("relation")]
        | Annotated[RidgeOptions, subcommand("ridge")]
        | Annotated[ProtoMAMLOptions, subcommand("proto-maml")]
        | Annotated[MAMLOptions, subcommand("maml")]
        | Annotated[ReptileOptions, subcommand("reptile")]
    ]


@dataclass(frozen=True)
class Resume:
    """Go on with an interrupted run, exactly where it was, or give a finished one more time."""

    run: Positional[Path]
    """Folder of the run."""
    minutes: float | None = None
    """New total budget in minutes; as before by default."""
    steps: int | None = None
    """New total budget in steps; as before by default."""


@dataclass(frozen=True)
class Eval:
    """Judge the best learner of a run on classes that it has never seen."""

    run: Positional[Path]
    """Folder of the run."""
    ways: int | None = None
    """Classes in a task; as trained by default."""
    shots: int | None = None
    """Labelled examples of each class; as trained by default."""
    queries: int | None = None
    """Query examples of each class; as in the run's validation by default."""
    tasks: int = 1000
    """How many fixed test tasks."""
    inner_steps: int | None = None
    """Gradient steps at test time, for maml, proto-maml and reptile; as in validation by default."""


@dataclass(frozen=True)
class Compare:
    """Compare runs task by task on the same test tasks; the first is what the others are compared with."""

    runs: Positional[tuple[Path, ...]]
    """Folders of two or more runs on the same data."""
    ways: int = 5
    """Classes in a task."""
    shots: int = 1
    """Labelled examples of each class."""
    queries: int = 15
    """Query examples of each class."""
    tasks: int = 1000
    """How many fixed test tasks."""


@dataclass(frozen=True)
class Data:
    """Fetch a data set, or say where it lies and what is in it."""

    name: Positional[Literal["omniglot", "miniimagenet", "glyphs"]]
    """Which one."""


@dataclass(frozen=True)
class Demo:
    """Learn to read new characters in about a minute, from nothing, and write a report."""

    out: Path = Path("runs/demo")
    """Folder for the report."""
    seconds: float = 75.0
    """Training time of the character learner; the wave learner takes a sixth of it more."""
    tasks: int = 600
    """How many fixed test tasks."""


@dataclass(frozen=True)
class Doctor:
    """Audit the meta-gradient through a model of your own on random tasks, and estimate its memory."""

    model: Positional[str]
    """path/to/file.py:name or package.module:name, where name is an nn.Module, its class, or a function for one."""
    input: str
    """Shape of one example, such as 1,28,28."""
    ways: int = 5
    """Classes in a task."""
    targets: int | None = None
    """Regression on so many numbers, instead of classes."""
    integers: int | None = None
    """Inputs are token numbers below this, instead of real numbers."""
    shots: int | None = None
    """Support examples of each class: 1 by default, 10 for regression."""
    queries: int = 5
    """Query examples of each class."""
    tasks: int = 4
    """Tasks in the meta-batch."""
    steps: tuple[int, ...] = (1, 5)
    """Numbers of inner steps."""
    inner_lr: float = 0.1
    """Inner step size."""
    budget: str | None = None
    """Memory that the meta-gradient may take, such as 4GB: what fits?"""


Command: TypeAlias = (
    Annotated[Train, subcommand("train")]
    | Annotated[Resume, subcommand("resume")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Compare, subcommand("compare")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Demo, subcommand("demo")]
    | Annotated[Doctor, subcommand("doctor")]
)
