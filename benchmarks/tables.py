"""Rows of results as tables in Markdown."""

from typing import Any

from rows import read_rows

__all__ = ["grouped", "latest", "markdown", "percent"]


def latest(table: str, *keys: str) -> list[dict[str, Any]]:
    """Return the rows of a table; of rows that agree in ``keys`` the last one measured."""
    return list({tuple(row[key] for key in keys): row for row in read_rows(table)}.values())


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown, or nothing where no row is there yet."""
    if not rows:
        return ""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(row: dict[str, Any]) -> str:
    return f"{100 * row['value']:.2f} ± {100 * row['ci95']:.2f}"


def grouped(rows: list[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Return the rows that agree in ``keys`` together, by what they agree in and in the order of their first rows."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups
