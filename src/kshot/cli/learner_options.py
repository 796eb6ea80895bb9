"""What can be said of a training run, learner by learner. Nothing here imports torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tyro.conf import Suppress

__all__ = [
    "DATA",
    "ClassifierOptions",
    "Distance",
    "InContextOptions",
    "LearnerOptions",
    "MAMLOptions",
    "MatchingOptions",
    "MemoryOptions",
    "MetricOptions",
    "Paper",
    "ProtoMAMLOptions",
    "PrototypicalOptions",
    "RecurrentOptions",
    "RelationOptions",
    "ReptileOptions",
    "RidgeOptions",
    "SNAILOptions",
    "SiameseOptions",
]

DATA = ("glyphs", "omniglot", "miniimagenet", "sinusoid")  # by name; any other data are a folder


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
    crop: bool = False
    """Train on random windows of pictures and their mirror images."""
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
    tasks_per_step: int = 16
    """Tasks in a meta-batch."""
    lr: float = 1e-3
    """Learning rate of Adam, the outer loop."""
    filters: int = 64
    """Filters in each block of the convolutional net."""
    compile: bool = False
    """Compile what a step does to tasks: minutes at first, then several times as fast where nets are small."""
    chunk: int | None = None
    """Tasks that go through a step together: all by default. Fewer need less memory."""
    side_by_side: bool = False
    """With --compile and --chunk: run chunks side by side, one on each core. It pays where a chunk is small: 8 tasks of 5
    classes or 2 of 20 for maml's strided net, one example and one query of each class."""
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
    encoder_from: str | None = None
    """Begin with the convolutional net of this run, which was trained on the same classes."""
    freeze_encoder: bool = False
    """Leave the weights of that net as they are: train what stands behind it."""
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


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(LearnerOptions):
    """Supervised pretraining (Chen et al. 2019): one head for all training classes; new ones by their class means."""

    batch: int = 256
    """Examples in a minibatch."""
    tasks_per_step: int = 1
    halve_every: int = 1000
    """Steps after which the learning rate halves."""
    classes: Suppress[int | None] = None  # counted in the data at the start, which need not be there when it is used


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
    feature_length: float | None = None
    """Bring what the last layer reads of a picture to this length, centred: an inner step from --start zero_head then
    compares directions alone, and goes by the square of the length further in this layer than in those before it."""
    inner_lr: float | None = None
    """Inner step size for the mean loss: 0.4 by default, 0.01 for sinusoid."""
    inner_steps: int = 1
    """Gradient steps on the support set."""
    test_steps: int | None = None
    """The same in validation and at test time; as in training by default."""
    differentiate: Literal["mixed", "reverse", "first_order", "implicit"] = "mixed"
    """How the meta-gradient passes the inner steps: exactly by mixed or by reverse mode (up to a quarter faster with
    --compile, and of more memory), in first order, or implicitly."""
    proximity: float = 2.0
    """For implicit, how strongly adapted weights are drawn to the start."""
    damping: float = 0.0
    """For implicit, how many times the identity is added to the system that gives the meta-gradient."""
    adapts: Literal["all", "no_norm", "head", "body", "context"] = "all"
    """What the inner loop adapts: all weights, all but scale and shift of the normalisation, the last layer (the body then
    runs once), all but it, or 5 (pictures: 100) numbers that steer the net."""
    start: Literal["torch", "finn", "zero_head"] = "torch"
    """Random weights as torch has them, or as the code of Finn et al.: Xavier's in convolutions and N(0, 1) in the last
    layer; N(0, 0.01) in all layers of the fully connected net. With zero_head every task finds the last layer at zero, so
    that its classes begin alike (Kao et al. 2022), and the first inner step moves that layer alone."""
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
    tail: bool = False
    """Move the start by the last inner step alone: first-order MAML as in that paper."""
    inner_rule: Literal["adam", "sgd"] = "adam"
    """How the inner loop steps; moments of Adam are carried from task to task."""
    inner_lr: float = 1e-3
    """Step size of the inner loop: 0.1 or so for sgd."""
    inner_steps: int = 5
    """Inner steps on a training task."""
    batch_size: int = 10
    """Examples in one of them."""
    test_steps: int = 50
    """Inner steps in validation and at test time, each on the whole support set."""
    tasks_per_step: int = 5
    lr: float = 1.0
    """Step size of the outer loop, which falls to zero over --steps; constant where only minutes are given."""


@dataclass(frozen=True, kw_only=True)
class InContextOptions(MetricOptions):
    """An in-context transformer (Kirsch et al. 2022): queries read the support set, of any number of ways."""

    train_ways: int = 20
    """The most classes in a training task; each step draws a number from 2 on."""
    tasks_per_step: int = 8
    blocks: int = 3
    """Blocks of the transformer."""


@dataclass(frozen=True, kw_only=True)
class MemoryOptions(LearnerOptions):
    """What every run of a learner that reads a sequence is told."""

    train_queries: int = 1
    """Query examples of each class in a training task."""
    halve_every: int = 10_000
    """Steps after which the learning rate halves."""


@dataclass(frozen=True, kw_only=True)
class RecurrentOptions(MemoryOptions):
    """A recurrent net with or without a memory (Santoro et al. 2016): it reads examples as they come."""

    preset: Literal["santoro2016"] | None = None
    """The paper's settings for whatever is not said."""
    cell: Literal["mann", "ntm", "lstm"] = "mann"
    """What remembers: least recently used access, a neural Turing machine, or an LSTM alone."""
    labels: Literal["one-hot", "strings"] = "one-hot"
    """Classes are told by one-hot rows, or by five letters, so that their number is not built in."""
    fewest_ways: int | None = None
    """With strings, each training step draws its number of classes, from this to --ways; by default all have --ways."""
    uneven: bool = False
    """In training, classes come unequally often and letters of strings equally: where nothing can be guessed by counting,
    examples are bound to labels sooner."""
    flat: bool = False
    """Read raw pixels, instead of what a convolutional net makes of them."""
    hidden: int = 200
    """Features of the controller."""
    slots: int = 128
    """Of the memory."""
    width: int = 40
    """Numbers in a slot."""
    heads: int = 4
    """That read the memory."""


@dataclass(frozen=True, kw_only=True)
class SNAILOptions(MemoryOptions):
    """SNAIL (Mishra et al. 2018): convolutions over time and causal attention."""
