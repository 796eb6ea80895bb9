"""Tables of unseen intents and of time series."""

import math
import statistics
from typing import Any

from tables import grouped, latest, markdown, percent

__all__ = ["intents", "series", "series_sets", "strangers"]

_TASKS = ((5, 1), (5, 5), ("all", 1), ("all", 5))
_HEAD = tuple(f"{ways}-way {shots}-shot" for ways, shots in _TASKS)


def _accuracies(table: str) -> list[dict[str, Any]]:
    return [row for row in latest(table, "metric", "data", "learner", "ways", "shots") if row["metric"] == "accuracy"]


def _training(rows: list[dict[str, Any]]) -> str:
    seconds = statistics.fmean(row["seconds"] for row in rows)
    return f"{seconds / 60:.1f} min" if seconds else ""


def intents(data: str) -> str:
    """Return the accuracy on unseen intents of a data set."""
    measured = grouped([row for row in _accuracies("intents") if row["data"] == data], "learner")
    rows = []
    for (learner,), found in measured.items():
        cell = {(row["ways"], row["shots"]): percent(row) for row in found}
        rows.append((learner, *(cell[task] for task in _TASKS)))
    return markdown((f"{data.upper()}, accuracy in %", *_HEAD), rows)


def strangers() -> str:
    """Return how well questions that fit no intent are told from those that do."""
    measured = [row for row in latest("intents", "metric", "learner") if row["metric"] == "auroc"]
    return markdown(("CLINC150", "AUROC, %"), [(row["learner"], percent(row)) for row in measured])


def series() -> str:
    """Return the accuracy on time series, the mean of the sets; the interval is over tasks."""
    rows = []
    for (learner,), found in grouped(_accuracies("series"), "learner").items():
        cells = []
        for ways, shots in _TASKS:
            sets = [row for row in found if (row["ways"], row["shots"]) == (ways, shots)]
            mean = statistics.fmean(row["value"] for row in sets)
            half_width = math.sqrt(sum(row["ci95"] ** 2 for row in sets)) / len(sets)
            cells.append(percent({"value": mean, "ci95": half_width}))
        rows.append((learner, *cells, _training(found)))
    return markdown(("mean of eight sets, accuracy in %", *_HEAD, "training"), rows)


def series_sets() -> str:
    """Return the accuracy on each set of time series, 5-way 1-shot."""
    found = [row for row in _accuracies("series") if (row["ways"], row["shots"]) == (5, 1)]
    learners = list(dict.fromkeys(row["learner"] for row in found))
    rows = []
    for (name, classes), of_set in grouped(found, "set", "classes").items():
        cell = {row["learner"]: percent(row) for row in of_set}
        rows.append((f"{name}, {classes} classes", *(cell[learner] for learner in learners)))
    return markdown(("5-way 1-shot, accuracy in %", *learners), rows)
