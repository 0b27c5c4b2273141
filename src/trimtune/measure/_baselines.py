"""The trivial baselines, always in the race: what any tuned model must beat to be worth its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.measure import _lm_baselines, quality
from trimtune.records import Artifact, Reading, Study
from trimtune.results import Baseline
from trimtune.store import Store
from trimtune.study import language
from trimtune.study.uses import tasks_of
from trimtune.tasks._base import reading_of
from trimtune.tune.baselines import _race


def race(study: Study, base: Artifact, rows: Artifact, store: Store,
         configs: Mapping[str, dict[str, Any]] | None = None) -> tuple[Baseline, ...]:
    """Every baseline that can do the task on rows of this kind, fitted and scored on the test rows; one that fails has a cause.

    Args:
        configs: measure → what differs from its defaults.
    """
    found = []
    for name in parts.names("baseline"):
        part, kind = parts.load("baseline", name), rows.facts.get("kind", "")
        if study.task in tasks_of(part) and kind in getattr(part, "KINDS", (kind,)):
            entry = Baseline(name=name, title=parts.doc("baseline", name).split(":")[0])
            try:
                found.append(_scored(entry, study, base, rows, store, configs or {}))
            except StepFailed as failure:
                found.append(entry.model_copy(update={"cause": failure.cause}))
    return tuple(found)


def _scored(entry: Baseline, study: Study, base: Artifact, rows: Artifact, store: Store,
            configs: Mapping[str, dict[str, Any]]) -> Baseline:
    speaks = parts.load("task", study.task).rows is language
    config: dict[str, Any] = {"task": study.task, "max_length": study.fit.max_length}
    code = parts.source_hash("baseline", entry.name) + parts.source_hash("task", study.task)
    if speaks:
        asked = {name: dict(configs.get(name, {})) for name in ("answers", "perplexity")}
        config |= {"reading": reading_of(study, rows), "configs": asked}
        code += "".join(parts.source_hash("measure", name) for name in asked) + parts.shared_hash("engine")
    made = store.step("baseline", entry.name, _lm_baselines.run if speaks else _race.run,
                      {**config, "baseline": entry.name, "base": base.folder, "rows": rows.folder}, config=config,
                      parents=(base, rows), code=code)
    entry = _lm_baselines.scored(entry, made.folder, configs) if speaks else _labelled(entry, made, rows)
    size_bytes = made.facts["size_bytes"]
    costs = {"fit_seconds": (made.facts.get("seconds", made.seconds), "s"),
             "size_mb": (size_bytes / 1e6 if size_bytes is not None else None, "MB")}
    taken = {key: Reading(name=key, value=value, unit=unit, better="lower", n=1) for key, (value, unit) in costs.items()
             if value is not None}
    return entry.model_copy(update={"readings": {**entry.readings, **taken}, "note": made.facts["note"]})


def _labelled(entry: Baseline, made: Artifact, rows: Artifact) -> Baseline:
    found = made.facts["predictions"]["test"]
    sample = {"predictions": found, "truth": rows.facts["test_labels"], "classes": rows.facts["labels"]}
    return entry.model_copy(update={"predictions": tuple(found), "readings": quality.summarize([sample], quality.Config())})
