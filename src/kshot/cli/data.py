"""``kshot data``."""

from rich.console import Console

from kshot.cli.options import Data
from kshot.tasks import miniimagenet, omniglot
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


def _describe(console: Console, stored: Stored) -> None:
    text = f"{stored.classes:,} classes, {stored.images:,} pictures, at {stored.path}"
    console.print(text, highlight=False, soft_wrap=True)
