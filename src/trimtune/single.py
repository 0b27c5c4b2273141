"""The door for people who only want to fit: one method, one learning rate, one folder with the model and its figures."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.errors import StepFailed, TrimtuneError
from trimtune.measure._seeds import score_seeds
from trimtune.process import Watch
from trimtune.records import Budget, DataSpec, Fit, Search, Study, Use
from trimtune.store import Store, link_tree
from trimtune.study.stored import prepared
from trimtune.tasks._base import base_of
from trimtune.tune import search

METRICS = "metrics.json"
_FACTS = ("rows_per_s", "tokens_per_s", "curve", "precision", "parameters", "trained_parameters")


def tune(train: str, *, out: Path, model: str = "minilm", method: str = "lora", config: dict[str, Any] | None = None,
         learning_rate: float | None = None, epochs: int = 4, batch_size: int = 32, max_length: int = 128,
         precision: str = "auto", patience: int = 3, seed: int = 0, validation: str | None = None, test: str | None = None,
         text: str | None = None, label: str | None = None,
         task: str = "text_classification", watch: Watch | None = None) -> dict[str, Any]:
    """Fit `method` once; `out` becomes the tuned model folder with `metrics.json` in it.

    A learning rate of None is the middle (on a log scale) of the method's range. A PEFT method's adapter and head are in
    `out/adapter`, in PEFT's own format.

    Raises:
        TrimtuneError: the input can't be used, or `out` holds something already.
        StepFailed: the fit failed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrimtuneError(f"--out {out} exists and is not an empty folder.",
                            "It must be a new or empty folder: nothing is overwritten.", "Choose another folder.")
    low, high = parts.load("method", method).LEARNING_RATES
    rate = learning_rate if learning_rate is not None else float(f"{math.sqrt(low * high):.2g}")
    use = Use(name=method.replace("-", "_"), config=config or {}, given=config or {})
    fit: dict[str, Any] = dict(epochs=epochs, batch_size=batch_size, max_length=max_length, precision=precision,
                               patience=patience)
    data = DataSpec(train=train, validation=validation, test=test, text=text, label=label)
    study = Study(name="tune", model=model, task=task, data=data, tune=(use,), trim=((),), engine=(), fit=Fit(**fit),
                  budget=Budget(trials=1, seeds=1), seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        store = Store(scratch, watch)
        rows, facts = prepared(study, store)
        base = base_of(study, facts.labels, store)
        made = search.fitter(use, study, base, rows, store)(rate, seed, ())
        ledger = Search(method=use, trials_asked=1, trials=(), seeds_asked=1, learning_rate=rate, seconds=made.seconds,
                        seeds=(search.seed_fit(made),))
        accuracy = score_seeds(ledger, rows, max_length, task, store).seeds[0].test_accuracy
        if accuracy is None:
            raise StepFailed(next(step.cause for step in store.steps if step.step == "score"))
        found = {"method": use.name, "accuracy": accuracy, "validation_accuracy": made.facts["validation_accuracy"],
                 **{name: made.facts[name] for name in _FACTS},
                 "seconds": made.seconds, "peak_memory_mb": made.peak_memory_mb, "learning_rate": rate,
                 "epochs": epochs, "epochs_run": made.facts["epochs_run"],
                 "seed": seed, "rows": facts.rows, "notes": list(facts.notes), "out": str(out)}
        (scratch / "out").mkdir()
        link_tree(made.folder, scratch / "out")
        (scratch / "out" / METRICS).write_text(json.dumps({**found, "out": out.name}, indent=1) + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()
        (scratch / "out").rename(out)
        return found
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
