"""Rows of a table as texts and labels, each cell checked, each fault told with its row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from trimtune.errors import TrimtuneError
from trimtune.study.check import quoted
from trimtune.study.table import Table

_BROKEN = re.compile("[\0\ud800-\udfff]")


@dataclass
class Labelled:
    """One split's rows, their labels still as text, with the places (row, line) that they came from."""

    table: Table
    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)

    def at(self, index: int) -> str:
        return self.table.at(*self.places[index])


def rows_of(table: Table, rows: Iterator[tuple[int, int, Sequence[Any]]], text: str, label: str) -> Labelled:
    """The table's texts and labels, each checked.

    Raises:
        TrimtuneError: a column is lacking, or a cell is empty or no text; with the row's number.
    """
    lacking = [column for column in (text, label) if column not in table.columns]
    if lacking:
        raise TrimtuneError(f"{table.name}: there is no column '{lacking[0]}'.",
                            f"Its columns: {', '.join(table.columns)}. All splits need the same text and label columns.",
                            "Rename its column, or leave the split out: it is then split off the training rows.")
    at_text, at_label = table.columns.index(text), table.columns.index(label)
    read = Labelled(table)
    for row, line, cells in rows:
        read.texts.append(text_of(cells[at_text], text, table, row, line))
        read.labels.append(_label(cells[at_label], label, table, row, line))
        read.places.append((row, line))
    return read


def text_of(cell: Any, column: str, table: Table, row: int, line: int) -> str:
    """A cell's text.

    Raises:
        TrimtuneError: it is empty, no text, or no valid Unicode.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise TrimtuneError(f"{table.at(row, line)}: the text (column '{column}') is empty.", "Each row needs a text.",
                            "Fill it in, or remove the row.")
    if not isinstance(cell, str):
        raise TrimtuneError(f"{table.at(row, line)}: the text (column '{column}') is {type(cell).__name__}: {quoted(cell)}.",
                            "Each text must be a string.", "Correct it, or name another column with data.text.")
    if _BROKEN.search(cell):
        raise TrimtuneError(f"{table.at(row, line)}: the text (column '{column}') holds a NUL or half a surrogate.",
                            "Each text must be valid Unicode.", "Was an emoji cut in two? Export the file again.")
    return cell


def _label(cell: Any, column: str, table: Table, row: int, line: int) -> str:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    whole = isinstance(cell, int) or (isinstance(cell, float) and cell.is_integer())  # pandas writes whole numbers as floats
    name = str(int(cell)) if whole else cell.strip() if isinstance(cell, str) else None if cell is None else cell
    if not name or name != name:
        raise TrimtuneError(f"{table.at(row, line)}: the label (column '{column}') is empty.", "Each row needs a label.",
                            "Fill it in, or remove the row.")
    if not isinstance(name, str) or _BROKEN.search(name):
        raise TrimtuneError(f"{table.at(row, line)}: the label (column '{column}') is {type(cell).__name__}: {quoted(cell)}.",
                            "A label is a word, a whole number, true or false.",
                            "Correct it, or name another column with data.label.")
    return name


def check_classes(train: Labelled, label: str, wanted: Sequence[str]) -> None:
    """Refuse one class only, and classes with fewer rows than there are splits to fill."""
    counts = Counter(train.labels)
    if len(counts) < 2:
        raise TrimtuneError(f"{train.table.name}: every row has the label '{train.labels[0]}' (column '{label}').",
                            "There must be two classes or more.", "Is another column the label? Name it with data.label.")
    least = max(2, 1 + len(wanted))
    for name, count in counts.items():
        if count < least:
            why = f", since {' and '.join(wanted)} {'is' if len(wanted) == 1 else 'are'} split off" if wanted else ""
            raise TrimtuneError(
                f"{train.at(train.labels.index(name))}: the class '{name[:80]}' has {count} row{'' if count == 1 else 's'} "
                f"(column '{label}').", f"Each class needs at least {least} training rows{why}.",
                f"Add rows, correct the label, or merge the class. {sum(c < least for c in counts.values())} of {len(counts)} "
                "classes are so small; if most are, name another column with data.label.")


def check_known(others: Mapping[str, Labelled], train: Labelled) -> None:
    """Refuse a validation or test label that no training row has."""
    known = sorted(set(train.labels))
    names = set(known)
    for name, rows in others.items():
        unknown = [row for row, label in enumerate(rows.labels) if label not in names]
        if unknown:
            label = rows.labels[unknown[0]]
            near = get_close_matches(label, known, n=1)
            more = f", … ({len(known)} in all)" if len(known) > 12 else ""
            also = f" ({len(unknown)} such rows in {name})" if len(unknown) > 1 else ""
            raise TrimtuneError(f"{rows.at(unknown[0])}: the label '{label[:80]}' is no label of the training rows{also}.",
                                f"Known: {', '.join(known[:12])}{more}.",
                                (f"Did you mean '{near[0]}'? " if near else "") + "Correct it, or remove the row.")
