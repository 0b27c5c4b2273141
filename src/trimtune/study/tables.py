"""Data files as tables: CSV and TSV, JSON Lines, Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from trimtune.errors import TrimtuneError
from trimtune.study.delimited import delimited
from trimtune.study.table import SAMPLE, Table
from trimtune.study.text_file import lines, shown


def open_table(path: Path) -> Table:
    """The table in a file, by its ending.

    Raises:
        TrimtuneError: here or while the rows are read: unreadable, empty, not UTF-8, ragged, broken.
    """
    readers = {".csv": delimited, ".tsv": delimited, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise TrimtuneError(f"{shown(path)}: unknown ending '{path.suffix}'.", f"Known: {', '.join(readers)}.",
                            "Save the rows as CSV (UTF-8, one header row) or as JSON Lines.")
    return reader(path)


def _json_lines(path: Path) -> Table:
    rows = _objects(path)
    sample = list(islice(rows, SAMPLE))
    columns = tuple(dict.fromkeys(name for _, found in sample for name in found))
    cells = ((row, row, [found.get(name) for name in columns]) for row, found in chain(sample, rows))
    return Table(shown(path), columns, cells, "line")


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    empty = True
    for row, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        empty, example = False, '{"text": "my invoice is wrong", "label": "billing"}'
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TrimtuneError(f"{shown(path)}: line {row} is not JSON ({error}).", f"Each line is one JSON object: {example}",
                                "Correct the line. A file that is one long list must become one object per line.") from None
        if not isinstance(found, dict):
            raise TrimtuneError(f"{shown(path)}: line {row} is no JSON object but a {type(found).__name__}.",
                                f"Each line is one JSON object: {example}", "Write one object per line.")
        yield row, found
    if empty:
        raise TrimtuneError(f"{shown(path)}: there is no row.", "Each line is one JSON object.", "Was the export cut off?")


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        columns = tuple(file.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise _broken_parquet(path, error) from None
    if not file.metadata.num_rows:
        raise TrimtuneError(f"{shown(path)}: there is no row.", "It must hold rows of text and label.", "Was the export cut off?")
    if len(set(columns)) < len(columns):
        raise TrimtuneError(f"{shown(path)}: two columns have the same name ({', '.join(columns)}).",
                            "Each column needs a name of its own.", "Rename one of them.")

    def rows() -> Iterator[tuple[int, int, Sequence[Any]]]:
        row = 0
        try:
            for batch in file.iter_batches():
                for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    row += 1
                    yield row, row, cells
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _broken_parquet(path, error) from None

    return Table(shown(path), columns, rows())


def _broken_parquet(path: Path, error: Exception) -> TrimtuneError:
    what = (str(error).splitlines() or [type(error).__name__])[0]
    return TrimtuneError(f"{shown(path)}: the Parquet file can't be read ({what[:160]}).",
                         "It must be a whole Parquet file.", "Was it cut off? Export it again, or give a CSV.")
