"""A chain of trims: each link is a step of its own, so chains that begin alike share their beginnings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.records import Artifact, Study, Use
from trimtune.store import Store


def trimmed(trims: Sequence[Use], tuned: Artifact, rows: Artifact, study: Study, store: Store) -> Artifact:
    """The model folder after all trims, in order; the tuned artifact itself if there is none.

    Raises:
        StepFailed: a link failed; the cause names it.
    """
    artifact = tuned
    for trim in trims:
        part = parts.load("trim", trim.name)
        parents = (artifact, rows) if part.NEEDS_DATA else (artifact,)
        shared = {"config": trim.config, "task": study.task, "max_length": study.fit.max_length,
                  "batch_size": study.fit.batch_size}
        code = parts.source_hash("trim", trim.name) + parts.source_hash("task", study.task) + parts.room_hash("tune")
        arguments = {**shared, "trim": trim.name, "source": artifact.folder, "rows_folder": rows.folder, "seed": study.seed}
        artifact = store.step("trim", trim.name, _run, arguments, config=shared, parents=parents, seed=study.seed, code=code)
    return artifact


def _run(folder: Path, *, trim: str, **arguments: Any) -> dict[str, Any]:
    """By name, so that a part from a folder of the user's is found in the step's process too."""
    facts: dict[str, Any] = parts.load("trim", trim).run(folder, **arguments)
    return facts


def numerics(trims: Sequence[Use]) -> str:
    """The number format that the engine must realize: the last trim's, or `plain`."""
    last = parts.load("trim", trims[-1].name).NUMERICS if trims else None
    return last or "plain"
