"""The spread over seeds: the test score of every seed's fit, in plain PyTorch, before any trim."""

from __future__ import annotations

from typing import Any

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.records import Artifact
from trimtune.results import Search
from trimtune.store import Store
from trimtune.tune.scoring import score_model


def score_seeds(ledger: Search, rows: Artifact, max_length: int, task: str, store: Store,
                reading: dict[str, Any] | None = None) -> Search:
    """The ledger with the test scores of its seeds filled in; one whose scoring fails stays without.

    Args:
        reading: what beside `max_length` decides how the task's rows become tokens (`reading` of the task).
    """
    filled = []
    for fit in ledger.seeds:
        model = store.find(fit.artifact)
        try:
            if model is None:
                raise StepFailed("its artifact is gone")
            config = {"split": "test", "max_length": max_length, "task": task, "reading": reading or {}}
            arguments = {**config, "model": model.folder, "rows": rows.folder}
            made = store.step("score", ledger.method.name, score_model, arguments, config=config, parents=(model, rows),
                              code=parts.source_hash("task", task) + parts.room_hash("tune"))
            filled.append(fit.model_copy(update={"test_score": made.facts["score"]}))
        except StepFailed:
            filled.append(fit)
    return ledger.model_copy(update={"seeds": tuple(filled)})
