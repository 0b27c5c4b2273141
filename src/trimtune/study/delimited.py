"""CSV and TSV files: separators found by looking, quotes taken strictly, every fault with its row."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimtune.errors import TrimtuneError
from trimtune.study.table import Table
from trimtune.study.text_file import lines, shown

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def delimited(path: Path) -> Table:
    """The table in a CSV or TSV file; commas (in a .tsv tabs) if the first line has any, else what it does have."""
    csv.field_size_limit(sys.maxsize)
    first = next((line for line in lines(path) if line.strip()), "")
    wanted = "\t" if path.suffix.lower() == ".tsv" else ","
    delimiter = next((mark for mark in (wanted, *_DELIMITERS) if mark in first), wanted)
    notes = [] if delimiter == wanted else [f"{path.name}: the cells are separated by {_DELIMITERS[delimiter]}"]
    quoting: Any = csv.QUOTE_MINIMAL
    if path.suffix.lower() == ".tsv" and not _quotes_pair_up(path, delimiter):
        quoting = csv.QUOTE_NONE
        notes.append(f"{path.name}: double quotes are taken as part of the text")
    records = _records(path, delimiter, quoting)
    row, _, header = next((record for record in records if any(map(str.strip, record[2]))), (1, 1, []))
    columns = tuple(cell.strip() or f"column {index}" for index, cell in enumerate(header, 1))
    twice = [name for index, name in enumerate(columns) if name in columns[:index]]
    if twice:
        raise TrimtuneError(f"{shown(path)}: row {row}: the column '{twice[0]}' stands in the header twice.",
                            "Each column needs a name of its own.", "Rename or remove one of them.")
    return Table(shown(path), columns, _cells(path, records, len(columns), row, notes), notes=notes)


def _records(path: Path, delimiter: str, quoting: Any) -> Iterator[tuple[int, int, list[str]]]:
    reader = csv.reader(lines(path), delimiter=delimiter, quoting=quoting, strict=True)
    row, line = 0, 1
    while True:
        row, line = row + 1, reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise TrimtuneError(f"{shown(path)}: {_where(row, line)}: the double quotes don't pair up ({error}).",
                                'A cell with a separator, a line break or a " stands in double quotes; a " inside is doubled.',
                                'Write for instance "she said ""no"" twice",label; or export it from a spreadsheet.') from None
        if cells is None:
            return
        yield row, line, cells


def _where(row: int, line: int) -> str:
    return f"row {row}" + (f" (line {line})" if line != row else "")


def _quotes_pair_up(path: Path, delimiter: str) -> bool:
    try:
        for _ in csv.reader(lines(path), delimiter=delimiter, strict=True):
            pass
    except csv.Error:
        return False
    return True


def _cells(path: Path, records: Iterator[tuple[int, int, list[str]]], width: int, header: int,
           notes: list[str]) -> Iterator[tuple[int, int, list[str]]]:
    blank = rows = 0
    for row, line, cells in records:
        if not any(map(str.strip, cells)):
            blank += 1
            continue
        if len(cells) != width:
            raise TrimtuneError(f"{shown(path)}: {_where(row, line)} has {len(cells)} cells, the header has {width}.",
                                "Each row must have as many cells as the header.",
                                "Put a text that holds the separator in double quotes." if len(cells) > width
                                else "Add the missing cells, or remove the row.")
        rows += 1
        yield row, line, cells
    if not rows:
        raise TrimtuneError(f"{shown(path)}: there is no row below the header (row {header}).",
                            "It must hold rows of text and label.", "Is the header row the only one, or was the export cut off?")
    if blank:
        notes.append(f"{path.name}: {blank} blank row{'s' if blank > 1 else ''} skipped")
