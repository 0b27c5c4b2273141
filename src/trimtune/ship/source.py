"""What is shipped from: a finished run, one of its candidates, and the artifacts on the way to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trimtune import parts
from trimtune.errors import TrimtuneError, unknown
from trimtune.records import Artifact
from trimtune.results import Result, Row
from trimtune.ship.manifest import ADAPTER
from trimtune.store import Store
from trimtune.study.kept import Rows
from trimtune.study.model import WEIGHTS

RESULT = "result.json"


@dataclass(frozen=True)
class Source:
    """`tuned` is the fit, `trimmed` the model folder that the engine was made from, `runnable` what was measured."""

    result: Result
    row: Row
    tuned: Artifact
    trimmed: Artifact
    runnable: Artifact
    rows: Rows[Any]
    """of the study, as its task reads them"""
    rows_sha256: dict[str, str]
    """file of the split rows → sha256"""
    adapter: Path | None
    """what the fit learned beside the study's own model; None where it changed that model's weights"""

    @property
    def numerics(self) -> str:
        """The numerics that the engine realizes: what its export was asked for."""
        return str(self.runnable.config.get("numerics") or self.runnable.facts.get("numerics") or "plain")

    @property
    def precision(self) -> str:
        return str(self.runnable.facts.get("precision", ""))


def read_result(run_folder: Path) -> Result:
    """`result.json` of a run folder.

    Raises:
        TrimtuneError: no run folder, an unfinished run, or a file that isn't what a run writes.
    """
    path = run_folder / RESULT
    if not path.is_file():
        state = "has no result.json: its run isn't finished" if run_folder.is_dir() else "doesn't exist"
        raise TrimtuneError(f"The run folder {run_folder} {state}.",
                            "Allowed: the folder that `trimtune run` wrote, runs/<study name>.",
                            "Run the study (again): trimtune run study.yaml. It continues where it ended.")
    try:
        return Result.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise TrimtuneError(f"{path}: {where}: {first['msg']}.", "It must be as `trimtune run` wrote it.",
                            "Run the study again: it reuses every step and writes the file anew.") from None


def open_run(run_folder: Path, result: Result, row: Row) -> Source:
    """A candidate of a run, with its artifacts verified against their hashes.

    Raises:
        TrimtuneError: a store that lacks what the run made.
    """
    store_folder = run_folder.resolve().parent / ".store"
    if not store_folder.is_dir():
        raise TrimtuneError(f"The store {store_folder} is gone, and with it the model files of {run_folder}.",
                            "A run folder is shipped from beside the .store that it was made in.",
                            "Copy runs/.store along, or run the study again.")
    store = Store(store_folder)
    runnable, trimmed = _artifact(store, row.artifact, row), _artifact(store, row.trimmed, row)
    ancestors = _ancestors(store, trimmed, row)
    fits = {fit.artifact for search in result.searches for fit in search.seeds}
    tuned = next((one for one in ancestors if one.key in fits), None)
    rows = next((one for one in [*_ancestors(store, runnable, row), *ancestors] if (one.folder / "facts.json").is_file()), None)
    if tuned is None or rows is None:
        raise _lacking(row, "its fit" if tuned is None else "its rows")
    reader: Any = parts.load("task", result.study.task).rows
    same_base = any(one.step == "base" and one.files[WEIGHTS] == tuned.files.get(WEIGHTS) for one in ancestors)
    kept = tuned.folder / ADAPTER if same_base and (tuned.folder / ADAPTER).is_dir() else None
    return Source(result, row, tuned, trimmed, runnable, reader.load(rows.folder), rows.files, kept)


def row_of(result: Result, candidate: str | None) -> Row:
    """The picked candidate, or the named one.

    Raises:
        TrimtuneError: no such candidate, none picked, or one that wasn't measured.
    """
    measured = [row.name for row in result.rows if row.status == "measured"]
    name = candidate or result.choice.picked
    if name is None:
        raise TrimtuneError("No candidate was picked: " + (result.choice.sentence or "nothing is inside the limits."),
                            f"Measured: {', '.join(measured) or 'none'}.",
                            "Name one with --candidate NAME, or relax a limit: trimtune choose RUN --require … --save.")
    row = next((row for row in result.rows if row.name == name), None)
    if row is None:
        raise unknown("candidate", name, measured, do="`trimtune choose RUN` lists them.")
    if row.status != "measured":
        raise TrimtuneError(f"Candidate '{name}' has no runnable artifact: {row.status} ({row.cause or 'no cause recorded'}).",
                            f"Measured: {', '.join(measured) or 'none'}.", "Choose one of those with --candidate.")
    return row


def _artifact(store: Store, key: str, row: Row) -> Artifact:
    found = store.find(key)
    if found is None:
        raise _lacking(row, f"artifact {key[:16] or '(no key)'}")
    return found


def _lacking(row: Row, what: str) -> TrimtuneError:
    return TrimtuneError(f"The store lacks {what} of candidate '{row.name}', or its files were changed.",
                         "What ships is exactly what was measured, so it must be in the store with its hashes.",
                         "Run the study again: it makes the missing steps and reuses the others.")


def _ancestors(store: Store, artifact: Artifact, row: Row) -> list[Artifact]:
    """The artifact and everything that it was made from, nearest first."""
    found, waiting = {artifact.key: artifact}, list(artifact.parents)
    while waiting:
        key = waiting.pop(0)
        if key not in found:
            found[key] = _artifact(store, key, row)
            waiting += found[key].parents
    return list(found.values())
