"""Build a bundle in a folder of its own: copy, prove hop by hop, describe, hash."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from trimtune import parts
from trimtune.process import Watch
from trimtune.ship import adapters, label_gate, lm_gate
from trimtune.ship.card import card
from trimtune.ship.manifest import ADAPTER, CARD, FORMAT, MODEL, check, write_manifest
from trimtune.ship.source import Source
from trimtune.study import language


def gate_of(source: Source) -> ModuleType:
    """The hops that a task's models are followed over."""
    return lm_gate if parts.load("task", source.result.study.task).rows is language else label_gate


def build(source: Source, folder: Path, watch: Watch) -> dict[str, Any]:
    """Write the whole bundle into `folder`; its manifest.

    Raises:
        ParityFailed: at the first hop that failed.
    """
    gate = gate_of(source)
    _copy(source, folder)
    hops, kept = gate.before(source, folder, watch)
    manifest = describe(source, hops, has_adapter=(folder / ADAPTER).is_dir())
    (folder / CARD).write_text(card(source, manifest), encoding="utf-8")
    write_manifest(folder, manifest)
    hops = [*hops, gate.after(source, folder, kept, watch)]
    manifest["parity"] = [hop.model_dump() for hop in hops]
    (folder / CARD).write_text(card(source, manifest), encoding="utf-8")
    write_manifest(folder, manifest)
    return check(folder)


def describe(source: Source, hops: list[Any], has_adapter: bool) -> dict[str, Any]:
    """The manifest without its hashes. Plain JSON; file paths of this machine are cut to their names."""
    result, row = source.result, source.row
    study = result.study.model_dump(mode="json")
    study["data"] = {key: _file_name(value) for key, value in study["data"].items()}
    study |= {key: _file_name(study[key]) for key in ("model", "smaller")}
    facts = result.data.model_dump(mode="json")
    facts["sources"] = {key: _file_name(value) for key, value in facts["sources"].items()}
    return {
        "format": FORMAT, "trimtune": version("trimtune"), "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "candidate": row.name, "task": result.study.task, "labels": list(result.data.labels),
        "engine": {"name": row.candidate.engine.name, "config": row.candidate.engine.config,
                   **{key: found for key, found in source.runnable.facts.items() if key in ("threads", "threads_ms")}},
        "numerics": source.numerics, "precision": source.precision, "packed": row.packed,
        "max_length": result.study.fit.max_length, **gate_of(source).facts(source),
        "method": row.candidate.method.model_dump(mode="json"),
        "trims": [trim.model_dump(mode="json") for trim in row.candidate.trims],
        "adapter": ADAPTER if has_adapter else None,
        "readings": {name: reading.model_dump(mode="json") for name, reading in row.readings.items()},
        "parity": [hop.model_dump() for hop in hops], "study": study, "data": facts,
        "rows_sha256": source.rows_sha256, "machine": result.machine, "measured": result.created,
    }


def _copy(source: Source, folder: Path) -> None:
    """Copies and no hard links: a bundle must live on when the store is cleaned, and never share its bytes with it."""
    for name in source.runnable.files:
        (folder / MODEL / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.runnable.folder / name, folder / MODEL / name)
    if source.adapter:
        shutil.copytree(source.adapter, folder / ADAPTER)
    for adapter in (folder / ADAPTER, folder / MODEL / ADAPTER):
        if adapter.is_dir():
            adapters.name_base(adapter, source.result.study.model)


def _file_name(value: Any) -> Any:
    """The last part of an absolute path; anything else as it is."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
