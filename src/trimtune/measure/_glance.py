"""A quick look at a candidate that may never be measured: its validation rows' score, its bytes, how fast it answers.

It is what `trim: auto` judges chains by. Nothing takes turns with it, so its times compare roughly; the candidates that are kept
are measured as all others are, on the test rows. A look at a language model is three rounds of what `generation` takes, and the
likelihood of the learned tokens as `perplexity` sums it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from trimtune import parts
from trimtune.measure import _machine
from trimtune.measure.size import shipped
from trimtune.process import threads
from trimtune.records import Artifact, Study
from trimtune.store import Store
from trimtune.study import language
from trimtune.tasks._base import reading_of

_WARM_UP, _TIMED = 30, 120
_ROUNDS, _PROMPTS = 3, 7
"""of a language model: rounds, and prompts of each; a median time to the first token needs 20"""


class Look(NamedTuple):
    score: float
    """of the validation rows, higher is better: accuracy, a fraction of 1; of a language model nats per learned token, below 0"""
    size_mb: float
    ms: float
    """the median of one row at a time, tokenizing included; of a language model of a next token on its cache, batch 1"""
    costs: Mapping[str, float] = {}
    """readings that don't depend on a fit, as this look foresees them: what limits may name"""
    rows: Sequence[tuple[float, int]] = ()
    """of a language model (negative log-likelihood in nats, learned tokens) of each prompt's rows; otherwise nothing"""


def timed(task: str) -> str:
    """What `Look.ms` is the time of, in words."""
    return "next token" if _is_language(task) else "one row"


def glance(runnable: Artifact, engine: str, study: Study, rows: Artifact, store: Store) -> Look:
    """One look, kept in the store.

    Raises:
        StepFailed: it can't be loaded, or gives no answers.
    """
    config: dict[str, Any] = {"task": study.task, "max_length": study.fit.max_length, "reading": reading_of(study, rows)}
    arguments = {**config, "engine": engine, "runnable": runnable.folder, "rows": rows.folder}
    measures = ("perplexity", "generation", "size") if _is_language(study.task) else ("quality", "size")
    code = parts.source_hash("task", study.task) + "".join(parts.source_hash("measure", name) for name in measures)
    made = store.step("glance", engine, _look, arguments, config={**config, "machine": _machine.describe()},
                      parents=(runnable, rows), code=code)
    return Look(*(made.facts[name] for name in Look._fields))


def _is_language(task: str) -> bool:
    return parts.load("task", task).rows is language


def _look(folder: Path, *, engine: str, runnable: Path, rows: Path, task: str, max_length: int,
          reading: dict[str, Any]) -> dict[str, Any]:
    from trimtune.measure._subject import open_subject

    subject: Any = open_subject(runnable, engine, rows, task, max_length, threads(), reading, "validation")
    seen = _language(subject) if _is_language(task) else _labels(subject)
    size_mb = sum(shipped(runnable).values()) / 1e6
    return seen | {"size_mb": size_mb, "costs": {**seen["costs"], "size_mb": size_mb}}


def _labels(subject: Any) -> dict[str, Any]:
    """Of a `LabelSubject`: `score`, `n` rows, `ms`."""
    import numpy as np

    from trimtune.measure._label_subject import finite
    from trimtune.measure.quality import predict

    texts = subject.texts
    found = predict(lambda some: finite(subject.logits(some), len(subject.classes)), texts, subject.together)
    taken: list[float] = []
    for at in range(_WARM_UP + _TIMED):
        started = time.perf_counter()
        subject.logits([texts[at % len(texts)]])
        taken.append(1000 * (time.perf_counter() - started))
    ms = median(taken[_WARM_UP:])
    return {"score": float((np.asarray(found) == np.asarray(subject.labels)).mean()), "n": len(found), "ms": ms,
            "costs": {"latency_p50_ms": ms}, "rows": []}


def _language(subject: Any) -> dict[str, Any]:
    """Of an `LMSubject`: `score`, `n` prompts and their `rows`, `ms` of a next token, and the readings of `generation`."""
    from trimtune.measure import generation, perplexity

    found = perplexity.by_row([perplexity.sample(subject, perplexity.Config())])
    config, taken = generation.Config(rows=_PROMPTS), []
    for turn in range(_ROUNDS):
        subject.turn = turn
        taken.append(generation.sample(subject, config))
    costs = {name: reading.value for name, reading in generation.summarize(taken, config).items() if reading.value is not None}
    nats, tokens = (sum(column) for column in zip(*found, strict=True))
    return {"score": -nats / tokens, "n": len(found), "ms": generation.pace_ms(taken), "costs": costs,
            "rows": [list(row) for row in found]}
