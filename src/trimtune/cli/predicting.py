"""The `predict` command: texts, a file or a pipe in; CSV, JSONL or a table out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from trimtune.errors import TrimtuneError
from trimtune.ship import bundle as bundles
from trimtune.ship import stream
from trimtune.ship.generator import MAX_NEW
from trimtune.ship.manifest import read_manifest
from trimtune.ship.predictor import Predictor

_WIDE = 60


def predict(bundle: Path, texts: list[str], file: Path | None, column: str | None, format_: stream.Format | None,
            out: Path | None, overwrite: bool, max_new: int | None = None) -> None:
    """Answer and print. Everything that can be refused is refused before the model is loaded.

    Raises:
        TrimtuneError: no texts, texts from two places, no such column, an output that exists, a length of answers that are
            labels.
    """
    _check(texts, file, column, format_, out)
    manifest = read_manifest(bundle)
    if max_new is not None and "rendering" not in manifest:
        raise TrimtuneError(f"--max-new-tokens {max_new}: {bundle} answers with labels.", "Only language models write answers.",
                            "Leave it out.")
    if out is not None and out.exists() and not overwrite:
        with stream.whole(out, overwrite):
            pass
    model = bundles.load(bundle)
    usual = manifest["data"]["text"]
    source = stream.from_file(file, column, usual) if file else stream.from_texts(texts or sys.stdin)
    found = stream.answered(model, source, max_new or MAX_NEW)
    chosen = format_ or _usual_format(file, out)
    if chosen == "table":
        _print_table(source, found, isinstance(model, Predictor))
    elif out is None:
        stream.write(found, source.columns, chosen, sys.stdout)
    else:
        with stream.whole(out, overwrite) as target:
            count = stream.write(found, source.columns, chosen, target)
        print(f"Wrote {count:,} rows to {out}.", file=sys.stderr)


def _check(texts: list[str], file: Path | None, column: str | None, format_: str | None, out: Path | None) -> None:
    if texts and file:
        raise TrimtuneError(f"Texts and --file {file} were both given.", "Allowed: one of them.", "Leave one out.")
    if column is not None and file is None:
        raise TrimtuneError(f"--column {column} was given without --file.", "Only a file has columns.",
                            "Add --file, or leave --column out.")
    if out is not None and format_ == "table":
        raise TrimtuneError("--format table was given with -o.", "A file gets csv or jsonl.", "Choose one of these.")
    if out is not None and file is not None and out.exists() and os.path.samefile(file, out):
        raise TrimtuneError(f"-o {out} is the input itself.", "The input is never overwritten.", "Choose another name.")
    if not texts and file is None and sys.stdin.isatty():
        raise TrimtuneError("There is nothing to answer: no text, no --file, and nothing is piped in.",
                            "Allowed: texts as arguments, --file FILE, or lines on standard input.",
                            'For instance: trimtune predict bundle/ "my invoice is wrong"')


def _usual_format(file: Path | None, out: Path | None) -> stream.Format:
    suffix = (out or file or Path()).suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    if out is not None or suffix in (".csv", ".tsv", ".parquet") or not sys.stdout.isatty():
        return "csv"
    return "table"


def _print_table(source: stream.Source, found: stream.Answers, labels: bool) -> None:
    from rich.text import Text

    from trimtune import screen
    from trimtune.cli import tables

    table = tables.plain_table(*found.names[:2], "text", right=("probability",))
    for cells, values in found.rows:
        answer = [Text(str(values[0])), Text(f"{values[1]:.1%}")] if labels else [Text(values[0])]
        text = str(cells[source.text])
        table.add_row(*answer, Text(text[:_WIDE] + ("…" if len(text) > _WIDE else "")))
    screen.results().print(table)
