"""Held-out intents: the five published splits of CLINC150 and BANKING77 for meta-learning."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from kshot.tasks.labelled import LabelledData, Splits, check_disjoint

__all__ = ["SPLITS", "protaugment_split"]

SPLITS = (1, 2, 3, 4, 5)


def protaugment_split(data: LabelledData, number: int = 1) -> Splits:
    """Deal the intents of CLINC150 or BANKING77 to train, val and test as ProtAugment does, in one of five ways.

    Thomas Dopierre, Christophe Gravier, Wilfried Logerais 2021, "ProtAugment: unsupervised diverse short-texts paraphrasing
    for intent detection meta-learning": 50/50/50 intents of CLINC150, 25/25/27 of BANKING77. The lists of names come with
    their code (github.com/tdopierre/ProtAugment, commit 4233bba, Apache 2.0).

    Args:
        data: all intents, embedded: ``clinc150().embedded(encoder)``, say.
        number: of the split, 1 to 5.

    Raises:
        ValueError: the classes are those of neither data set, or there is no such split.

    >>> data = LabelledData.from_arrays([[0.0], [1.0]], ["translate", "oos"])
    >>> protaugment_split(data)
    Traceback (most recent call last):
        ...
    ValueError: expected all 150 intents of clinc150 or all 77 of banking77; found 2 classes, first oos.
    """
    if number not in SPLITS:
        raise ValueError(f"the splits are numbered 1 to 5; found {number}.")
    for listed in _listed().values():
        parts = listed[number - 1]
        if {intent for part in parts.values() for intent in part} == set(data.classes):
            position = {name: i for i, name in enumerate(data.classes)}
            return check_disjoint(
                Splits(
                    *(
                        data.subset([position[intent] for intent in parts[part]], split=_name(part, number, parts))
                        for part in ("train", "val", "test")
                    )
                )
            )
    raise ValueError(
        "expected all 150 intents of clinc150 or all 77 of banking77; "
        f"found {len(data.classes)} classes, first {data.classes[0]}."
    )


def _name(part: str, number: int, parts: dict[str, list[str]]) -> str:
    counts = "/".join(str(len(parts[one])) for one in ("train", "val", "test"))
    return f"{part} of ProtAugment {number}: {counts} intents"


@cache
def _listed() -> Any:
    return json.loads((files("kshot.tasks") / "intent_splits.json").read_text(encoding="utf-8"))
