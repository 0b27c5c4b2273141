"""The spread over seeds: the test accuracy of every seed's fit, in plain PyTorch, before any trim."""

from __future__ import annotations

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.measure import quality
from trimtune.records import Artifact
from trimtune.results import Search
from trimtune.store import Store


def score_seeds(ledger: Search, rows: Artifact, max_length: int, task: str, store: Store) -> Search:
    """The ledger with the test accuracies of its seeds filled in; one whose scoring fails stays without."""
    scored = []
    for fit in ledger.seeds:
        model = store.find(fit.artifact)
        try:
            if model is None:
                raise StepFailed("its artifact is gone")
            config = {"split": "test", "max_length": max_length, "task": task}
            arguments = {**config, "model": model.folder, "rows": rows.folder}
            code = parts.source_hash("task", task) + parts.source_hash("measure", "quality")
            made = store.step("score", ledger.method.name, quality.score_model, arguments, config=config, parents=(model, rows),
                              code=code)
            scored.append(fit.model_copy(update={"test_score": made.facts["accuracy"]}))
        except StepFailed:
            scored.append(fit)
    return ledger.model_copy(update={"seeds": tuple(scored)})
