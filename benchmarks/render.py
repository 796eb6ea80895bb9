"""Render the committed result rows into the tables of README.md and of the pages in docs.

A table stands between ``<!-- table NAME -->`` and ``<!-- end NAME -->``; what is between them is replaced.

    python benchmarks/render.py
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rows import read_rows

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def latest(table: str, *keys: str) -> list[dict[str, Any]]:
    """Return the rows of a table; of rows that agree in ``keys`` the last one measured."""
    return list({tuple(row[key] for key in keys): row for row in read_rows(table)}.values())


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(row: dict[str, Any]) -> str:
    return f"{100 * row['value']:.2f} ± {100 * row['ci95']:.2f}"


def omniglot() -> str:
    """Return ours beside the published accuracy, and how long training took."""
    rows = [
        (
            row["learner"].capitalize(),
            f"{row['ways']}-way {row['shots']}-shot",
            row["variant"],
            percent(row),
            f"{row['published']:.1f}",
            f"{row['episodes']:,}",
            f"{row['seconds'] / 60:.0f} min",
            f"{row['machine'].split(',')[0]}, {row['machine'].split(',')[1].strip()}",
        )
        for row in latest("omniglot", "learner", "ways", "shots", "variant")
    ]
    return markdown(
        ("learner", "task", "trained on", "accuracy, %", "paper", "test tasks", "training", "machine"), rows
    )


def sinusoid() -> str:
    """Return the mean squared error after 1, 5 and 10 gradient steps beside the published one."""
    rows = []
    measured = latest("sinusoid", "learner", "gradient_steps", "seed")
    for name in ("MAML", "pretrained", "oracle"):
        of_name = {row["gradient_steps"]: row for row in measured if row["learner"] == name}
        cells = [
            f"{of_name[step]['value']:.3g} ± {of_name[step]['ci95']:.2g}"
            + (f" (paper {of_name[step]['published']:g})" if of_name[step]["published"] else "")
            if step in of_name
            else ""
            for step in (0, 1, 5, 10)
        ]
        rows.append((name, *cells, f"{next(iter(of_name.values()))['seconds']} s"))
    return markdown(("learner", "no step", "1 step", "5 steps", "10 steps", "training"), rows)


def sampling() -> str:
    """Return the speed of drawing tasks."""
    value = {row["metric"]: row["value"] for row in latest("sampling", "metric")}
    rows = [
        ("32 tasks from memory, one gather, in a row", f"{value['meta-batch, ms']:.1f} ms"),
        ("the same between training steps", f"{value['meta-batch between training steps, ms']:.1f} ms"),
        (
            "32 tasks, one picture at a time with Pillow and a DataLoader",
            f"{value['meta-batch by Pillow and DataLoader, ms']:.0f} ms",
        ),
        ("ratio of the first to the third", f"{value['ratio']:.0f}x"),
        ("share of a prototypical training step", f"{value['share of a 60-way prototypical step']:.1%}"),
    ]
    return markdown(("drawing tasks", "median"), rows)


TABLES: dict[str, Callable[[], str]] = {"omniglot": omniglot, "sinusoid": sinusoid, "sampling": sampling}


def rendered(text: str) -> str:
    """Return a page with its tables replaced by what the rows say now."""
    for name, table in TABLES.items():
        pattern = re.compile(f"(<!-- table {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if pattern.search(text):
            content = table()
            text = pattern.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rendered(page.read_text()))
