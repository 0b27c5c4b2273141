"""The data step: a study's rows, read, checked, split and put into the store under the hash of what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.records import Artifact, Study
from trimtune.results import DataFacts
from trimtune.store import Store


def prepared(study: Study, store: Store) -> tuple[Artifact, DataFacts]:
    """The rows as an artifact, and what was found in them. The files are read each time, so a changed row is a new key."""
    kind = parts.load("task", study.task).rows
    rows = kind.read(study.data, study.seed)
    artifact = store.step("data", study.task, _save, {"rows": rows, "task": study.task}, fresh=False, config=kind.content(rows))
    for note in rows.facts.notes:
        store.watch({"kind": "note", "text": note})
    facts: DataFacts = rows.facts
    return artifact, facts


def _save(folder: Path, *, rows: Any, task: str) -> dict[str, Any]:
    kind = parts.load("task", task).rows
    kind.save(rows, folder)
    summary: dict[str, Any] = kind.summary(rows)
    return summary
