"""BANKING77: 13,083 questions of a bank's customers with 77 intents that are close to each other."""

import csv
from pathlib import Path

from kshot.tasks.cache import Stored, data_folder
from kshot.tasks.download import download
from kshot.tasks.texts import Texts

__all__ = ["banking77", "prepare"]

_MIRRORS = (
    "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/master/banking_data/",
    "https://github.com/PolyAI-LDN/task-specific-datasets/raw/57ec275/banking_data/",
)
_FILES = {
    "train.csv": ("sha256:b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b", 839073),
    "test.csv": ("sha256:d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d", 239961),
}


def banking77(root: Path | None = None) -> Texts:
    """Load all questions, 75 to 227 of each intent; the first time they are downloaded (1 MB).

    Iñigo Casanueva et al. 2020, "Efficient intent detection with dual sentence encoders". Creative Commons Attribution 4.0.
    The published parts, which share all intents, are joined: for held-out intents see ``kshot.tasks.intents``. Six questions
    of one part occur in the other too; they are left as they are.

    Args:
        root: the folder that holds ``banking77/``; by default ``kshot.tasks.cache.data_folder()``.

    Raises:
        DataUnavailable: the data is not on this machine and cannot be downloaded.
        ValueError: a file is damaged (named, and how to mend it).
    """
    pairs = []
    for name, (checksum, size) in _FILES.items():
        path = download([mirror + name for mirror in _MIRRORS], _folder(root) / name, checksum, size)
        with path.open(newline="", encoding="utf-8") as file:
            pairs += [(row["text"], row["category"]) for row in csv.DictReader(file)]
    return Texts.from_pairs(pairs, data="banking77")


def prepare(root: Path | None = None) -> Stored:
    """Download the data where needed; say where it lies and what it holds."""
    data = banking77(root)
    return Stored(_folder(root), len(data.classes), len(data.texts))


def _folder(root: Path | None) -> Path:
    return (root or data_folder()) / "banking77"
