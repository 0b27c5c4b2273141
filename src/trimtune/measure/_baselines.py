"""The trivial baselines, always in the race: what any tuned model must beat to be worth its weights."""

from __future__ import annotations

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.measure import quality
from trimtune.records import Artifact, Reading, Study
from trimtune.results import Baseline
from trimtune.store import Store
from trimtune.study.uses import tasks_of
from trimtune.tune.baselines import _race


def race(study: Study, base: Artifact, rows: Artifact, store: Store) -> tuple[Baseline, ...]:
    """Every baseline that can do the task, fitted and scored on the test rows; one that fails has a cause instead."""
    names = [name for name in parts.names("baseline") if study.task in tasks_of(parts.load("baseline", name))]
    return tuple(_scored(name, study, base, rows, store) for name in names)


def _scored(name: str, study: Study, base: Artifact, rows: Artifact, store: Store) -> Baseline:
    entry = Baseline(name=name, title=parts.doc("baseline", name).split(":")[0])
    config = {"task": study.task, "max_length": study.fit.max_length}
    try:
        made = store.step("baseline", name, _race.run, {**config, "baseline": name, "base": base.folder, "rows": rows.folder},
                          config=config, parents=(base, rows),
                          code=parts.source_hash("baseline", name) + parts.source_hash("task", study.task))
    except StepFailed as failure:
        return entry.model_copy(update={"cause": failure.cause})
    found = made.facts["predictions"]["test"]
    sample = {"predictions": found, "truth": rows.facts["test_labels"], "classes": rows.facts["labels"]}
    size_bytes = made.facts["size_bytes"]
    costs = {"fit_seconds": (made.seconds, "s")} | ({"size_mb": (size_bytes / 1e6, "MB")} if size_bytes is not None else {})
    readings = {**quality.summarize([sample], quality.Config()),
                **{key: Reading(name=key, value=value, unit=unit, better="lower", n=1) for key, (value, unit) in costs.items()}}
    return entry.model_copy(update={"predictions": tuple(found), "readings": readings, "note": made.facts["note"]})
