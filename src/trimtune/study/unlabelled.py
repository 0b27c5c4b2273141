"""Texts without labels: the lines of a text file, or the text column of a table."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

from trimtune.errors import TrimtuneError
from trimtune.study import columns
from trimtune.study.rows import text_of
from trimtune.study.sources import EXTENSIONS
from trimtune.study.table import SAMPLE
from trimtune.study.tables import open_table
from trimtune.study.text_file import lines, shown

PLAIN = ".txt"
"""ending of files that hold one text per line"""
ENDINGS = (PLAIN, *EXTENSIONS)


def read(path: Path) -> list[str]:
    """The texts of a file, in its order. Blank lines of a text file are passed over; a table's other columns are not looked at.

    Raises:
        TrimtuneError: unreadable, no text in it, or a table's cell is empty; with its row.
    """
    if path.suffix.lower() == PLAIN:
        texts = [line.strip() for line in lines(path) if line.strip()]
    else:
        table = open_table(path)
        sample = list(islice(table.rows, SAMPLE))
        try:
            column = columns.text_of(table.name, table.columns, [cells for _, _, cells in sample])
        except TrimtuneError as error:
            raise TrimtuneError(error.given, error.allowed, "Name the column of the texts `text`.") from None
        at = table.columns.index(column)
        texts = [text_of(cells[at], column, table, row, line) for row, line, cells in chain(sample, table.rows)]
    if not texts:
        raise TrimtuneError(f"{shown(path)}: it holds no texts.", "It must hold one text or more.", "Give another file.")
    return texts
