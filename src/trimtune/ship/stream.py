"""Rows in, answers out: a file's rows keep all their columns and get the answer beside them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from trimtune.errors import TrimtuneError
from trimtune.ship.generator import MAX_NEW, Generator
from trimtune.ship.predictor import Predictor
from trimtune.study.tables import open_table
from trimtune.study.text_file import lines, shown

Format = Literal["csv", "jsonl", "table"]
PLAIN = (".txt", ".text", "")
"""files whose lines are the texts"""


_IN_CSV = 2
"""values of an answer that a table has room for"""


class Answers(NamedTuple):
    """Each row's cells with the values that answer it, and what these are called."""

    names: tuple[str, ...]
    rows: Iterator[tuple[Sequence[Any], tuple[Any, ...]]]


@dataclass(frozen=True)
class Source:
    """Rows that can be read once: their cells, and the text of each at `text`."""

    columns: tuple[str, ...]
    rows: Iterator[Sequence[Any]]
    text: int = 0


def from_texts(texts: Iterable[str]) -> Source:
    """Texts from the command line or from a pipe, one per line."""
    return Source(("text",), ([text.rstrip("\r\n")] for text in texts))


def from_file(path: Path, column: str | None, usual: str) -> Source:
    """The rows of a CSV, TSV, JSONL, Parquet or text file.

    Args:
        column: the text's column; None takes `usual` (the study's), else `text`, else the only one.

    Raises:
        TrimtuneError: here or while the rows are read, with file and row.
    """
    if path.suffix.lower() in PLAIN:
        if column is not None:
            raise TrimtuneError(f"--column {column}: {shown(path)} is plain text.",
                                "A text file has no columns: each line is one text.",
                                "Leave --column out, or give a CSV or JSONL file.")
        return from_texts(lines(path))
    if not path.is_file():
        raise TrimtuneError(f"There is no file {shown(path)}.",
                            "Allowed: .csv, .tsv, .jsonl, .parquet, or .txt with a text per line.",
                            "Check the path.")
    table = open_table(path)
    name = column or next((name for name in (usual, "text") if name in table.columns), None)
    if name is None and len(table.columns) == 1:
        name = table.columns[0]
    if name not in table.columns:
        given = f"there is no column '{name}'" if name else f"none of its columns is called '{usual}', as in the study"
        raise TrimtuneError(f"{table.name}: {given}.", f"Its columns: {', '.join(table.columns)}.",
                            "Name the text's with --column.")
    index = table.columns.index(name)

    def rows() -> Iterator[Sequence[Any]]:
        for row, line, cells in table.rows:
            if cells[index] is None:
                raise TrimtuneError(f"{table.at(row, line)}: '{name}' is missing.", "Each row needs a text; it may be empty.",
                                    "Add it, or leave the row out.")
            yield cells

    return Source(table.columns, rows(), index)


def answered(model: Predictor | Generator, source: Source, max_new: int = MAX_NEW) -> Answers:
    """Each row with its answer, in order, without holding more than a chunk of them."""
    kept, asked = tee(source.rows)
    if isinstance(model, Predictor):
        labels = model.stream(str(cells[source.text]) for cells in asked)
        return Answers(("label", "probability", "probabilities"), (
            (cells, (one.label, one.probability, one.probabilities)) for cells, one in zip(kept, labels, strict=True)))
    said = model.answers((cells[source.text] for cells in asked), max_new)
    return Answers(("answer",), ((cells, (one,)) for cells, one in zip(kept, said, strict=True)))


def write(found: Answers, columns: Sequence[str], format_: Format, file: IO[str]) -> int:
    """Write answers as CSV (label, probability; or answer) or JSONL (all probabilities too); the number of rows."""
    names = [_free(name, columns) for name in found.names]
    table = csv.writer(file, lineterminator="\n")
    if format_ == "csv":
        table.writerow([*columns, *names[:_IN_CSV]])
    count = 0
    for cells, values in found.rows:
        count += 1
        if format_ == "csv":
            table.writerow([*map(_cell, cells), *(f"{value:.6f}" if isinstance(value, float) else value
                                                  for value in values[:_IN_CSV])])
        else:
            row = {name: cell for name, cell in zip(columns, cells, strict=True) if cell is not None}
            row |= dict(zip(names, values, strict=True))
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    return count


def _cell(value: Any) -> Any:
    """A list or a mapping, such as a conversation, as JSON: a CSV cell that can be read again."""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value


@contextmanager
def whole(path: Path, overwrite: bool) -> Iterator[IO[str]]:
    """A text file that appears under its name only when all of it was written.

    Raises:
        TrimtuneError: the file exists and `overwrite` isn't set.
    """
    if path.exists() and (path.is_dir() or not overwrite):
        raise TrimtuneError(f"{shown(path)} exists{' and is a folder' if path.is_dir() else ''}.",
                            "Nothing is overwritten unasked.",
                            "Choose another name" + ("." if path.is_dir() else ", or add --overwrite."))
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _free(name: str, columns: Sequence[str]) -> str:
    """`label`, or `predicted_label` where the input has a column of that name."""
    while name in columns:
        name = f"predicted_{name}"
    return name
