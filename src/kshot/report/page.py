"""The page of a report: one file that needs nothing else, in light and in dark."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from kshot import __version__
from kshot.checkpoint import write_atomically
from kshot.evaluation import Evaluation

__all__ = ["Section", "results_table", "write_report"]

# The content policy makes the browser itself refuse whatever would have to be loaded from elsewhere.
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{subtitle}</header>
<main>
{sections}
</main>
<footer>kshot {version}</footer>
</body>
</html>
"""


class Section(NamedTuple):
    """A part of a report: its heading as plain text, and its body as HTML."""

    heading: str
    body: str


def write_report(path: str | Path, title: str, sections: Sequence[Section], subtitle: str = "") -> None:
    """Write a report as one HTML file that appears whole or not at all.

    Args:
        path: the file, in a folder that exists.
        title: plain text.
        sections: in the order of the page; only their bodies are taken as HTML.
        subtitle: plain text beneath the title.

    Raises:
        OSError: the disk is full or not writable.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "report.html"
    >>> write_report(path, "R & D", [Section("Results", "<p>none yet</p>")])
    >>> "<h1>R &amp; D</h1>" in path.read_text(encoding="utf-8")
    True
    """
    page = _PAGE.format(
        title=escape(title),
        style=files("kshot.report").joinpath("style.css").read_text(encoding="utf-8"),
        subtitle=f'<p class="subtitle">{escape(subtitle)}</p>\n' if subtitle else "",
        sections="\n".join(_section(number, section) for number, section in enumerate(sections, 1)),
        version=__version__,
    )
    write_atomically(Path(path), page.encode())


def _section(number: int, section: Section) -> str:
    heading = f'<h2 id="section-{number}">{escape(section.heading)}</h2>'
    return f'<section aria-labelledby="section-{number}">\n{heading}\n{section.body}\n</section>'


def results_table(rows: Mapping[str, Evaluation]) -> str:
    """Return a table of results as HTML: the mean, its 95 % interval, the number of tasks, and the protocol.

    What all rows have in common stands beneath the table, what only some have stands beneath their names. No row is
    marked as the best: use ``kshot.compare`` to tell whether one is.

    Raises:
        ValueError: there is no row.

    >>> import torch
    >>> table = results_table({"Prototypical": Evaluation("accuracy", True, torch.tensor([0.8, 1.0, 0.9, 0.9]))})
    >>> "90.00 % ± 8.00" in table
    True
    """
    if not rows:
        raise ValueError("results_table needs at least one evaluation; found none. Leave the section out instead.")
    stamps = [result.stamp.items() for result in rows.values()]
    common = dict(item for item in stamps[0] if all(item in stamp for stamp in stamps))
    body = "\n".join(_row(name, result, common) for name, result in rows.items())
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Learner", "Mean ± 95 % interval", "Tasks"))
    table = f'<table class="results">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>'
    return f'<div class="scroll">{table}</div>\n' + _protocol(common)


def _row(name: str, result: Evaluation, common: Mapping[str, str]) -> str:
    own = _listed(item for item in result.stamp.items() if item[0] not in common)
    note = f"<small>{own}</small>" if own else ""
    value = f"{escape(result.short())}<small>{escape(result.metric)}</small>"
    numbers = f'<td class="number">{value}</td><td class="number">{len(result.scores):,}</td>'
    return f'<tr><th scope="row">{escape(name)}{note}</th>{numbers}</tr>'


def _protocol(stamp: Mapping[str, str]) -> str:
    return f'<p class="note">Protocol: {_listed(stamp.items())}.</p>' if stamp else ""


def _listed(items: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{escape(key)}: {escape(value)}" for key, value in items)
