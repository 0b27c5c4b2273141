"""The data step: a study's rows, read, checked, split and put into the store under the hash of what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtune.records import Artifact, Study
from trimtune.results import DataFacts
from trimtune.store import Store, key_of
from trimtune.study import data


def prepared(study: Study, store: Store) -> tuple[Artifact, DataFacts]:
    """The rows as an artifact, and what was found in them. The files are read each time, so a changed row is a new key."""
    rows = data.read(study.data, study.seed)
    content = {name: [getattr(rows, name).texts, getattr(rows, name).labels] for name in ("train", "validation", "test")}
    artifact = store.step("data", study.task, _save, {"rows": rows}, fresh=False,
                          config={"content": key_of(**content), "labels": list(rows.facts.labels)})
    for note in rows.facts.notes:
        store.watch({"kind": "note", "text": note})
    return artifact, rows.facts


def _save(folder: Path, *, rows: data.Rows) -> dict[str, Any]:
    data.save(rows, folder)
    return {"rows": rows.facts.rows, "labels": list(rows.facts.labels), "test_labels": rows.test.labels}
