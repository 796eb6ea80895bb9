"""The commands, and what can be said to them. Nothing here imports torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from tyro.conf import OmitSubcommandPrefixes, Positional, subcommand

from kshot.cli.learner_options import (
    ClassifierOptions,
    InContextOptions,
    MAMLOptions,
    MatchingOptions,
    ProtoMAMLOptions,
    PrototypicalOptions,
    RecurrentOptions,
    RelationOptions,
    ReptileOptions,
    RidgeOptions,
    SiameseOptions,
    SNAILOptions,
)
from kshot.cli.rl_options import RL

__all__ = [
    "RL",
    "Add",
    "Command",
    "Compare",
    "Data",
    "Demo",
    "Doctor",
    "Eval",
    "Export",
    "Fit",
    "Predict",
    "Resume",
    "Train",
]


@dataclass(frozen=True)
class Train:
    """Meta-train a learner into a run folder."""

    learner: OmitSubcommandPrefixes[
        Annotated[PrototypicalOptions, subcommand("prototypical")]
        | Annotated[MatchingOptions, subcommand("matching")]
        | Annotated[SiameseOptions, subcommand("siamese")]
        | Annotated[RelationOptions, subcommand("relation")]
        | Annotated[RidgeOptions, subcommand("ridge")]
        | Annotated[ClassifierOptions, subcommand("classifier")]
        | Annotated[ProtoMAMLOptions, subcommand("proto-maml")]
        | Annotated[MAMLOptions, subcommand("maml")]
        | Annotated[ReptileOptions, subcommand("reptile")]
        | Annotated[RecurrentOptions, subcommand("recurrent")]
        | Annotated[SNAILOptions, subcommand("snail")]
        | Annotated[InContextOptions, subcommand("in-context")]
    ]


@dataclass(frozen=True)
class Resume:
    """Go on with an interrupted run, exactly where it was, or give a finished one more time."""

    run: Positional[Path]
    """Folder of the run."""
    minutes: float | None = None
    """New total budget in minutes. Given alone it replaces a budget of steps too; without either all is as before."""
    steps: int | None = None
    """New total budget in steps. Given alone it replaces a budget of minutes too."""


@dataclass(frozen=True)
class Eval:
    """Judge the best learner of a run on classes that it has never seen, or a fitted model on labelled examples."""

    run: Positional[Path]
    """Folder of the run, or of the fitted model."""
    data: Positional[Path | None] = None
    """For a fitted model: a folder with one folder of pictures for each class, or a .csv table."""
    label: str = "label"
    """Column of the table that holds the class."""
    ways: int | None = None
    """Classes in a task; as trained by default."""
    shots: int | None = None
    """Labelled examples of each class; as trained by default."""
    queries: int | None = None
    """Query examples of each class; as in the run's validation by default."""
    tasks: int | None = None
    """How many fixed test tasks: 1000 by default."""
    inner_steps: int | None = None
    """Gradient steps at test time, for maml, proto-maml and reptile; as in validation by default."""


@dataclass(frozen=True)
class Compare:
    """Compare runs task by task on the same test tasks; the first is what the others are compared with."""

    runs: Positional[tuple[Path, ...]]
    """Folders of two or more runs on the same data."""
    ways: int | None = None
    """Classes in a task; as in validation of the first run by default."""
    shots: int | None = None
    """Labelled examples of each class; as in validation of the first run by default."""
    queries: int | None = None
    """Query examples of each class; as in validation of the first run by default."""
    tasks: int = 1000
    """How many fixed test tasks."""


@dataclass(frozen=True)
class Fit:
    """Learn a classifier from a few examples of your own."""

    data: Positional[Path]
    """A folder with one folder of pictures for each class, or a .csv table of texts or numbers."""
    out: Path
    """Folder for the model."""
    encoder: str | None = None
    """A name on the hub of Hugging Face, a folder with such a model, or a run of kshot train."""
    method: Literal["auto", "nearest-mean", "ridge", "linear-probe", "fine-tune-last", "fine-tune", "own"] = "auto"
    """auto chooses by cross-validation inside the examples; own is the whole learner of a run."""
    threshold: float | None = None
    """Share of known examples that may be lost so that strangers are answered with 'none of these'."""
    label: str = "label"
    """Column of the table that holds the class."""
    cache: Path | None = None
    """Folder where embeddings are kept, so that they are computed once."""
    overwrite: bool = False
    """Replace a model that is there already."""


@dataclass(frozen=True)
class Predict:
    """Say of which class examples are."""

    model: Positional[Path]
    """Folder of the model."""
    examples: Positional[tuple[str, ...]]
    """Files of pictures, a .csv table, texts, or files of one text each."""
    label: str = "label"
    """Column of the table that holds the class, where it has one; it is not looked at."""


@dataclass(frozen=True)
class Add:
    """Add examples to a model, of a known class or of a new one, without training it again."""

    model: Positional[Path]
    """Folder of the model."""
    examples: Positional[tuple[str, ...]]
    """Files of pictures, a .csv table, texts, or files of one text each."""
    label: str
    """Their class."""


@dataclass(frozen=True)
class Export:
    """Write a model as one ONNX file, encoder and head together."""

    model: Positional[Path]
    """Folder of the model."""
    out: Path
    """The file."""
    example: Path
    """A folder or table like that of the fit, which shows the shape of the input."""
    label: str = "label"
    """Column of the table that holds the class."""


@dataclass(frozen=True)
class Data:
    """Fetch a data set, or say where it lies and what is in it."""

    name: Positional[Literal["omniglot", "miniimagenet", "clinc150", "banking77", "ucr", "glyphs"]]
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
    | Annotated[Fit, subcommand("fit")]
    | Annotated[Predict, subcommand("predict")]
    | Annotated[Add, subcommand("add")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Demo, subcommand("demo")]
    | Annotated[Doctor, subcommand("doctor")]
    | Annotated[RL, subcommand("rl")]
)
