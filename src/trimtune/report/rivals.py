"""The next smaller model off the shelf as lines of a table: its figures, and how each candidate of it stands to the pick."""

from __future__ import annotations

from trimtune.report import tables
from trimtune.results import Result, Row


def lines(result: Result) -> list[tuple[Row, tuple[tables.Cell, ...], str]]:
    """Each candidate of the smaller model, its figures, and how it stands to the pick (to the best, if none is picked)."""
    found = {verdict.candidate: str(verdict) for verdict in result.choice.smaller}
    return [(row, tables.cells(result, row, tables.shown(result)) if row.readings else (), found.get(row.name, row.cause))
            for row in result.rivals]


def told(result: Result) -> str:
    """What they are, and how one of them ships."""
    against = next((verdict.against for verdict in result.choice.smaller), "")
    compared = f", compared with {against}" if against else ""
    return (f"{result.study.smaller}, tuned by the same methods in the same budget, untrimmed, and measured in turns with the "
            f"candidates{compared}. It is never picked: to ship it, name it as the study's model; its fits are in the store.")
