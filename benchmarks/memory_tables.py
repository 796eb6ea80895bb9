"""The tables of learners that write and read."""

from collections.abc import Iterator
from typing import Any

from tables import grouped, latest, markdown, percent

__all__ = ["neural_process", "recurrent", "sequence_bits", "sequence_speed", "sequences", "stories"]


def recurrent() -> str:
    """Return accuracy by presentation, beside the published one."""
    kinds = ("learner", "ways", "labels", "reads")
    measured = [
        {**row, "resize": "antialiased" if "antialiased" in row["protocol"] else "nearest"}
        for row in latest("recurrent", *kinds, "protocol")  # which says the presentation too
    ]
    rows = []
    for (learner, ways, labels, reads, resize), of_one in grouped(measured, *kinds, "resize").items():
        own = {row["presentation"]: row for row in of_one}
        cells = [
            percent(own[n]) + (f" (paper {own[n]['published']:.1f})" if own[n]["published"] is not None else "")
            for n in (1, 2, 3, 5, 10)
        ]
        one = own[1]
        kind = ", ".join((learner, reads, *_unlike_the_paper(one.get("training", {})), resize))
        rows.append((kind, f"{ways}, {labels}", *cells, f"{one['episodes']:,}", _training(one)))
    return markdown(("learner", "classes", "1st", "2nd", "3rd", "5th", "10th", "test streams", "training"), rows)


def _unlike_the_paper(training: dict[str, Any]) -> Iterator[str]:
    """Say how a recurrent net differs from the paper's; older rows, which tell no settings, are of the paper's."""
    if training.get("cell") == "mann" and (memory := (training["heads"], training["width"])) != (4, 40):
        yield "{} heads of {} numbers".format(*memory)
    if training.get("uneven", False):
        yield "uneven streams"


def sequence_speed() -> str:
    """Return the time of a training step in a loop, in a batch and compiled, and its memory."""
    rows = [
        (
            row["learner"],
            f"{row['loop']:.0f} ms",
            f"{row['value']:.0f} ms ({row['loop'] / row['value']:.1f}x), {row['bytes'] / 1e6:,.0f} MB",
            f"{row['compiled']:.0f} ms ({row['loop'] / row['compiled']:.1f}x)",
            f"{row['compile_seconds']:.0f} s",
        )
        for row in latest("sequence_speed", "learner")
    ]
    return markdown(("16 sequences", "one after the other", "a batch", "a batch, compiled", "compiling"), rows)


def neural_process(data: str) -> str:
    """Return the log-likelihood by the number of support points, and how far the exact posterior is ahead."""
    measured = [row for row in latest("neural_process", "data", "learner", "shots") if row["data"] == data]
    shots = sorted({row["shots"] for row in measured})
    rows, behind = [], []
    for (name,), of_one in grouped(measured, "learner").items():
        own = {row["shots"]: row for row in of_one}
        seconds = own[shots[0]]["seconds"]
        cells = [f"{own[n]['value']:.3f} ± {own[n]['ci95']:.3f}" for n in shots]
        rows.append((name, *cells, f"{seconds} s" if seconds else ""))
        if "behind" in own[shots[0]]:
            cells = [f"{own[n]['behind']:.3f} ± {own[n]['behind_ci95']:.3f}" for n in shots]
            behind.append((f"{name} is behind by, paired", *cells, ""))
    return markdown(("learner", f"{shots[0]} points", *(str(n) for n in shots[1:]), "training"), rows + behind)


def stories() -> str:
    """Return the share of wrong answers by kind of question, beside what was published on other stories."""
    measured = latest("stories", "kind", "variant")
    variants = list(dict.fromkeys(row["variant"] for row in measured))
    rows = []
    for (kind,), of_one in grouped(measured, "kind").items():
        by_variant = {row["variant"]: row for row in of_one}
        own = [by_variant[variant] for variant in variants]
        wrong = [
            f"{100 * (1 - row['value']):.1f} ± {100 * row['ci95']:.1f}"
            if row["value"] < 1
            else f"0 of {row['episodes']:,}"
            for row in own
        ]
        rows.append((kind.replace("_", " "), *wrong, f"{100 - own[0]['published']:.1f}"))
    head = ("questions", *(f"error, %: {variant}" for variant in variants))
    return markdown((*head, "on bAbI, joint, % (other stories: not comparable)"), rows)


def sequence_bits(task: str) -> str:
    """Return the bits per sequence of every learner, the fewest there can be, and what the paper's figure shows."""
    variants, runs = _sequence_runs(task, "bits per sequence")
    rows = []
    for run in runs:
        first, cells = run[variants[0]], [f"{run[name]['value']:.1f} ± {run[name]['ci95']:.1f}" for name in variants]
        rows.append((first["learner"], str(first["seed"]), *cells, first["published"], _training(first)))
    if "bayes" in (first := runs[0][variants[0]]):
        rows.append(("best possible, by Bayes' rule", "", f"{first['bayes']:.1f}", "", ""))
    return markdown(("learner", "seed", *variants, "paper, read off its figure", "training"), rows)


def sequences(task: str) -> str:
    """Return the share of wrong bits of every learner and seed, by what it was tested on."""
    variants, runs = _sequence_runs(task, "bit error")
    rows = []
    for run in runs:
        first, cells = run[variants[0]], [percent(run[name]) if run[name]["value"] else "0" for name in variants]
        rows.append((first["learner"], str(first["seed"]), *cells, _training(first)))
    return markdown(("learner", "seed", *variants, "training"), rows)


def _sequence_runs(task: str, metric: str) -> tuple[list[str], list[dict[str, dict[str, Any]]]]:
    """Return what was tested, and for each learner and seed its row of each test."""
    measured = [
        row
        for row in latest("sequences", "task", "learner", "seed", "variant", "metric")
        if row["task"] == task and row["metric"] == metric
    ]
    by_run = grouped(measured, "learner", "seed").values()
    return list(dict.fromkeys(row["variant"] for row in measured)), [
        {row["variant"]: row for row in run} for run in by_run
    ]


def _training(row: dict[str, Any]) -> str:
    return f"{row['steps']:,} steps, {row['seconds'] / 60:.0f} min"
