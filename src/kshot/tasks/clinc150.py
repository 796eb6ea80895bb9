"""CLINC150: 22,500 questions to an assistant with 150 intents of 10 domains, and 1,200 that fit none of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from kshot.tasks.cache import Stored, data_folder
from kshot.tasks.download import download
from kshot.tasks.texts import Texts

__all__ = ["OutOfScope", "clinc150", "out_of_scope", "prepare"]

_MIRRORS = (
    "https://raw.githubusercontent.com/clinc/oos-eval/master/data/",
    "https://github.com/clinc/oos-eval/raw/828f809/data/",
)
_FILES = {
    "data_full.json": ("sha256:36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0", 2495390),
    "domains.json": ("sha256:b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a", 3818),
}


class OutOfScope(NamedTuple):
    """Questions that fit no intent: 100, 100 and 1,000."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def clinc150(root: Path | None = None) -> Texts:
    """Load all questions that have an intent, 150 of each; the first time they are downloaded (2.5 MB).

    Stefan Larson et al. 2019, "An evaluation dataset for intent classification and out-of-scope prediction". Creative
    Commons Attribution 3.0. The published parts, which share all intents, are joined: for held-out intents see
    ``kshot.tasks.intents``. Five questions occur twice, four of them with two intents; they are left as they are. The
    group of an intent is its domain.

    Args:
        root: the folder that holds ``clinc150/``; by default ``kshot.tasks.cache.data_folder()``.

    Raises:
        DataUnavailable: the data is not on this machine and cannot be downloaded.
        ValueError: a file is damaged (named, and how to mend it).
    """
    parts, domains = _read("data_full.json", root), _read("domains.json", root)
    pairs = [(text, intent) for part in ("train", "val", "test") for text, intent in parts[part]]
    data = Texts.from_pairs(pairs, data="clinc150")
    domain = {intent.replace(" ", "_"): name for name, intents in domains.items() for intent in intents}
    return replace(data, groups=tuple(domain[intent] for intent in data.classes))


def out_of_scope(root: Path | None = None) -> OutOfScope:
    """Load the questions that fit no intent; arguments and errors as for ``clinc150``."""
    parts = _read("data_full.json", root)
    return OutOfScope(*(tuple(text for text, _ in parts[f"oos_{part}"]) for part in OutOfScope._fields))


def prepare(root: Path | None = None) -> Stored:
    """Download the data where needed; say where it lies and what it holds."""
    data = clinc150(root)
    return Stored(_folder(root), len(data.classes), len(data.texts))


def _folder(root: Path | None) -> Path:
    return (root or data_folder()) / "clinc150"


def _read(name: str, root: Path | None) -> Any:
    checksum, size = _FILES[name]
    path = download([mirror + name for mirror in _MIRRORS], _folder(root) / name, checksum, size)
    return json.loads(path.read_text(encoding="utf-8"))
