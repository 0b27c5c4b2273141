"""A quick look at a candidate that may never be measured: its validation rows' score, its bytes, the time of one row.

It is what `trim: auto` judges chains by. Nothing takes turns with it, so its times compare roughly; the candidates that are kept
are measured as all others are, on the test rows.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from trimtune import parts
from trimtune.measure import _machine
from trimtune.measure.size import shipped
from trimtune.process import threads
from trimtune.records import Artifact, Study
from trimtune.store import Store
from trimtune.tasks._base import reading_of

_WARM_UP, _TIMED = 30, 120


class Look(NamedTuple):
    score: float
    """accuracy on the validation rows, a fraction of 1"""
    size_mb: float
    ms: float
    """the median of one row at a time, tokenizing included"""


def glance(runnable: Artifact, engine: str, study: Study, rows: Artifact, store: Store) -> Look:
    """One look, kept in the store.

    Raises:
        StepFailed: it can't be loaded, or gives no answers.
    """
    config: dict[str, Any] = {"task": study.task, "max_length": study.fit.max_length, "reading": reading_of(study, rows)}
    arguments = {**config, "engine": engine, "runnable": runnable.folder, "rows": rows.folder}
    code = parts.source_hash("task", study.task) + "".join(parts.source_hash("measure", name) for name in ("quality", "size"))
    made = store.step("glance", engine, _look, arguments, config={**config, "machine": _machine.describe()},
                      parents=(runnable, rows), code=code)
    return Look(*(made.facts[name] for name in Look._fields))


def _look(folder: Path, *, engine: str, runnable: Path, rows: Path, task: str, max_length: int,
          reading: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from trimtune.measure._label_subject import finite, open_labels
    from trimtune.measure.quality import predict
    from trimtune.study import data

    subject = open_labels(parts.load("task", task), runnable, engine, rows, max_length, threads(), reading)
    kept = data.load(rows).validation
    found = predict(lambda texts: finite(subject.logits(texts), len(subject.classes)), kept.texts, subject.together)
    taken: list[float] = []
    for at in range(_WARM_UP + _TIMED):
        started = time.perf_counter()
        subject.logits([kept.texts[at % len(kept.texts)]])
        taken.append(1000 * (time.perf_counter() - started))
    return {"score": float((np.asarray(found) == np.asarray(kept.labels)).mean()), "n": len(found),
            "size_mb": sum(shipped(runnable).values()) / 1e6, "ms": median(taken[_WARM_UP:])}
