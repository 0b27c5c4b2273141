"""Build a bundle in a folder of its own: copy, prove hop by hop, describe, hash."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trimtune.errors import StepFailed
from trimtune.process import Watch, Worker
from trimtune.ship import parity
from trimtune.ship.bundle import ADAPTER, CARD, FORMAT, MODEL, check, load, write_manifest
from trimtune.ship.card import card
from trimtune.ship.source import Source
from trimtune.study.model import locate


def build(source: Source, folder: Path, watch: Watch) -> dict[str, Any]:
    """Write the whole bundle into `folder`; its manifest.

    Raises:
        ParityFailed: at the first hop that failed.
    """
    _copy(source, folder)
    hops, logits_NC = _prove_before(source, folder, watch)
    manifest = describe(source, hops, has_adapter=(folder / ADAPTER).is_dir())
    (folder / CARD).write_text(card(source, manifest), encoding="utf-8")
    write_manifest(folder, manifest)
    hops = [*hops, _prove_after(source, folder, logits_NC, watch)]
    manifest["parity"] = [hop.model_dump() for hop in hops]
    (folder / CARD).write_text(card(source, manifest), encoding="utf-8")
    write_manifest(folder, manifest)
    return check(folder)


def describe(source: Source, hops: list[parity.Hop], has_adapter: bool) -> dict[str, Any]:
    """The manifest without its hashes. Plain JSON; file paths of this machine are cut to their names."""
    result, row = source.result, source.row
    study = result.study.model_dump(mode="json")
    study["data"] = {key: _file_name(value) for key, value in study["data"].items()}
    study["model"] = _file_name(study["model"])
    facts = result.data.model_dump(mode="json")
    facts["sources"] = {key: _file_name(value) for key, value in facts["sources"].items()}
    return {
        "format": FORMAT, "trimtune": version("trimtune"), "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "candidate": row.name, "task": result.study.task, "labels": list(result.data.labels),
        "engine": {"name": row.candidate.engine.name, "config": row.candidate.engine.config},
        "numerics": source.numerics, "precision": source.precision, "packed": row.packed,
        "max_length": result.study.fit.max_length,
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
    if (source.tuned.folder / ADAPTER).is_dir():
        shutil.copytree(source.tuned.folder / ADAPTER, folder / ADAPTER)
        _name_base(folder / ADAPTER / "adapter_config.json", source)


def _name_base(path: Path, source: Source) -> None:
    """Let the adapter's config name its base model as the world knows it, not as a path of this machine."""
    config = json.loads(path.read_text(encoding="utf-8"))
    public = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}
    config["base_model_name_or_path"] = public.get(source.result.study.model, _file_name(source.result.study.model))
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def _prove_before(source: Source, folder: Path, watch: Watch) -> tuple[list[parity.Hop], Any]:
    """The hops up to the engine; also the engine's logits [N, C] of the validation rows."""
    study, candidate = source.result.study, source.row.candidate
    shared: dict[str, Any] = {"task": study.task, "texts": parity.evenly(source.rows.validation.texts),
                              "max_length": study.fit.max_length}
    hops = []
    with Worker() as worker:
        if (folder / ADAPTER).is_dir():
            unmerged = _asked("tuned → merged", worker, parity.model_logits, source.tuned.folder, merge=False, **shared)
            merged = _asked("tuned → merged", worker, parity.model_logits, source.tuned.folder, merge=True, **shared)
            strict = (parity.MERGE_TOLERANCE, parity.AGREEMENT)
            hops.append(_passed(parity.compare("tuned → merged", unmerged, merged, *strict), watch))
            plain = _asked("tuned → plain peft", worker, parity.plain_peft_logits, locate(study.model), folder / ADAPTER,
                           labels=len(source.result.data.labels), **shared)
            hops.append(_passed(parity.compare("tuned → plain peft", unmerged, plain, *strict), watch))
        model = _asked("model → engine", worker, parity.model_logits, source.trimmed.folder, merge=True, **shared)
    allowed_difference, allowed_agreement = parity.tolerance(candidate.engine.name, source.numerics, source.precision)
    note = "" if allowed_difference is not None else f"{source.numerics} changes answers on purpose: recorded, not judged"
    with Worker() as worker:
        logits_NC = _asked("model → engine", worker, parity.engine_logits, source.runnable.folder, candidate.engine.name,
                           **shared)
    hops.append(_passed(parity.compare("model → engine", model, logits_NC, allowed_difference, allowed_agreement, note), watch))
    return hops, logits_NC


def _prove_after(source: Source, folder: Path, logits_NC: Any, watch: Watch) -> parity.Hop:
    """The last hop, by the bundle's own loading in a process that has seen nothing else."""
    measured = [label for label in source.result.predictions.get(source.row.name, ()) if isinstance(label, int)]
    if len(measured) != len(source.rows.test.texts) or not measured:
        raise StepFailed(f"The parity gate refused to ship. measured → bundle: the run recorded {len(measured)} predictions for "
                         f"{len(source.rows.test.texts)} test rows. Nothing was written.")
    with Worker() as worker:
        validation, test = _asked("measured → bundle", worker, bundle_logits, folder,
                                  [parity.evenly(source.rows.validation.texts), source.rows.test.texts])
    exact = source.numerics == "plain" and source.precision in ("", "fp32")
    return _passed(parity.compare_shipped(logits_NC, validation, measured, test, 1.0 if exact else parity.AGREEMENT), watch)


def bundle_logits(folder: Path, texts: list[list[str]]) -> list[Any]:
    """Logits [N, C] of each list of texts by a bundle that is loaded for it."""
    predictor = load(folder)
    return [predictor.logits(rows) for rows in texts]


def _asked(hop: str, worker: Worker, *call: Any, **arguments: Any) -> Any:
    """A call in the worker; what can't even be loaded or run is a hop that failed."""
    try:
        return worker.call(*call, **arguments)
    except StepFailed as failure:
        raise StepFailed(f"The parity gate refused to ship. {hop}: {failure.cause}. Nothing was written.",
                         failure.detail) from None


def _passed(hop: parity.Hop, watch: Watch) -> parity.Hop:
    watch({"kind": "note" if hop.passed else "warning", "text": f"parity {hop}"})
    return parity.demand(hop)


def _file_name(value: Any) -> Any:
    """The last part of an absolute path; anything else as it is."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
