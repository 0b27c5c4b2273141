"""A table as every reader hands it on: columns, then rows one after another with the number that the user sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

SAMPLE = 2000
"""rows that are looked at before the columns are known"""


@dataclass(frozen=True)
class Table:
    """`rows` can be read once: the row's number (a spreadsheet's: the header is row 1), its line, and its cells."""

    name: str
    columns: tuple[str, ...]
    rows: Iterator[tuple[int, int, Sequence[Any]]]
    unit: str = "row"
    notes: list[str] = field(default_factory=list)
    """what was found; complete once the rows are read"""

    def at(self, row: int, line: int) -> str:
        """`train.csv: row 12`, with the line where quoted line breaks make it differ."""
        return f"{self.name}: {self.unit} {row}" + (f" (line {line})" if line != row else "")
