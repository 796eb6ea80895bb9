"""Where data sets lie on this machine, and how files come there whole."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["DataUnavailable", "Stored", "data_folder", "writing"]


class DataUnavailable(RuntimeError):  # noqa: N818, a state of the machine that callers plan for
    """A data set is not on this machine and cannot be fetched; the message says what to place where."""


class Stored(NamedTuple):
    """What a data set on this machine holds."""

    path: Path
    classes: int
    examples: int


def data_folder() -> Path:
    """Return the folder that holds one folder for each data set: ``KSHOT_DATA``, or the user's cache folder."""
    if chosen := os.environ.get("KSHOT_DATA"):
        return Path(chosen).expanduser()
    return _user_cache() / "kshot"


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk, or a folder that may not be written to, into an error that says what to do.

    Raises:
        DataUnavailable: an OSError was raised inside.
    """
    try:
        yield
    except OSError as error:
        raise DataUnavailable(
            f"cannot write {path} ({error}). "
            "Free some space, or set KSHOT_DATA to a folder with room that you may write to."
        ) from error
