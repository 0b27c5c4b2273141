"""What can be shipped, and of which candidate.

    bundle    all that predicting needs, run by the engine that was measured
    peft      the adapter alone, in PEFT's layout, with its tokenizer
    merged    a plain transformers folder, adapter folded in
    onnx, …   the bundle of the same method and trims on the engine that writes this format: engines say `FORMAT = "onnx"`
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.errors import TrimtuneError, unknown
from trimtune.process import Watch
from trimtune.results import Result, Row
from trimtune.ship import plain
from trimtune.ship.build import build
from trimtune.ship.source import Source, row_of

Build = Callable[[Source, Path, Watch], dict[str, Any]]
FORMATS: dict[str, Build] = {"bundle": build, "peft": plain.adapter, "merged": plain.merged}
"""those that no engine writes"""


def written_by() -> dict[str, str]:
    """Format → the engine that writes it, of the engines that say so."""
    found = {name: getattr(parts.load("engine", name), "FORMAT", None) for name in parts.names("engine")}
    return {format_: name for name, format_ in found.items() if format_}


def chosen(format_: str, result: Result, candidate: str | None) -> tuple[Build, Row]:
    """How a format is written, and the candidate of the run that is written in it.

    Raises:
        TrimtuneError: no such format, or a format of an engine on which the study measured nothing alike.
    """
    if format_ in FORMATS:
        return FORMATS[format_], row_of(result, candidate)
    engines = written_by()
    if format_ not in engines:
        raise unknown("format", format_, [*FORMATS, *engines], "--format", "`bundle` is the usual one.")
    return build, _on(engines[format_], format_, result, row_of(result, candidate))


def _on(engine: str, format_: str, result: Result, row: Row) -> Row:
    """The measured candidate with the same method and trims on an engine: the one itself if it is there, else the first."""
    wanted = row.candidate
    alike = [one for one in (row, *result.rows) if one.status == "measured" and one.candidate.engine.name == engine
             and (one.candidate.method, one.candidate.trims) == (wanted.method, wanted.trims)]
    if alike:
        return alike[0]
    chain = "+".join([wanted.method.label, *(trim.label for trim in wanted.trims)])
    failed = next((one for one in result.rows if one.status != "measured" and one.candidate.engine.name == engine
                   and (one.candidate.method, one.candidate.trims) == (wanted.method, wanted.trims)), None)
    why = f" {failed.name}: {failed.status} ({failed.cause})." if failed else ""
    others = [one.name for one in result.rows if one.status == "measured" and one.candidate.engine.name == engine]
    raise TrimtuneError(
        f"--format {format_} is written by the engine {engine}, on which the study measured no {chain}.{why}",
        f"What ships was measured. On {engine}: {', '.join(others) or 'nothing'}.",
        "Name one of these with --candidate." if others else
        f"Add {engine} to the study's `engine` and run it again: every step that is there is reused.")
