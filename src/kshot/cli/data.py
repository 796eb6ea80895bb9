"""``kshot data``."""

from rich.console import Console

from kshot.cli.options import Data
from kshot.tasks import banking77, clinc150, miniimagenet, omniglot, ucr
from kshot.tasks.cache import Stored
from kshot.tasks.glyphs import glyphs

__all__ = ["run_data"]


def run_data(command: Data) -> None:
    """Fetch a data set where that is possible, and say where it lies and what is in it."""
    console = Console()
    match command.name:
        case "glyphs":
            for split in ("train", "val", "test"):
                data = glyphs(split)
                console.print(f"{split}: {len(data.classes):,} characters, {len(data.x):,} drawings, made on the fly")
        case "omniglot":
            _describe(console, omniglot.prepare())
        case "miniimagenet":
            _describe(console, miniimagenet.prepare())
        case "clinc150":
            _describe(console, clinc150.prepare(), "texts")
        case "banking77":
            _describe(console, banking77.prepare(), "texts")
        case "ucr":
            _describe(console, ucr.prepare(), "series")


def _describe(console: Console, stored: Stored, what: str = "pictures") -> None:
    text = f"{stored.classes:,} classes, {stored.examples:,} {what}, at {stored.path}"
    console.print(text, highlight=False, soft_wrap=True)
