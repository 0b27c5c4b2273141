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
from trimtune.records import Artifact, Budget, DataSpec, Fit, Study, Use
from trimtune.results import DataFacts, Search
from trimtune.store import Store, link_tree, write_new
from trimtune.study.check import check
from trimtune.study.document import Place
from trimtune.study.stored import prepared
from trimtune.study.uses import refuse_packing
from trimtune.tasks._base import base_of, reading_of
from trimtune.tasks._inputs import READING, reading_in
from trimtune.tune import search
from trimtune.tune.fits import Fits
from trimtune.tune.parallel import launched

METRICS = "metrics.json"
_FACTS = ("rows_per_s", "tokens_per_s", "epochs_run", "curve", "losses", "device", "precision", "packed", "parameters",
          "trained_parameters")

_CARD = """\
# {name}: {model_name} tuned by {method}

Test {metric} {score:.4g} ({test_rows:,} rows). Learning rate {learning_rate:g}, {epochs_run} of {epochs} epochs, the best one
kept, seed {seed}, in {precision}; {metrics} has all figures.

```python
from transformers import AutoTokenizer, {auto}
{peft}
tokenizer = AutoTokenizer.from_pretrained("{name}")
{template}model = {auto}.from_pretrained("{name}")
{adapter}
{example}
```
"""


def tune(train: str, *, out: Path, model: str = "minilm", method: str = "lora", config: dict[str, Any] | None = None,
         learning_rate: float | None = None, epochs: int = 4, batch_size: int = 32, max_length: int = 128,
         precision: str = "auto", patience: int = 3, class_weights: str = "none", packing: str = "auto", seed: int = 0,
         validation: str | None = None, test: str | None = None, data: dict[str, Any] | None = None,
         task: str = "text_classification", watch: Watch | None = None) -> dict[str, Any]:
    """Fit `method` once; `out` becomes the tuned model folder with `metrics.json` in it.

    A learning rate of None is the middle (on a log scale) of the method's range. A PEFT method's adapter and head are in
    `out/adapter`, in PEFT's own format. A fit that is stopped leaves its last checkpoint beside `out`; the same call goes on
    from there. Under torchrun all processes make the fit together (see `tune/parallel.py`) and all but the first return {}.

    Raises:
        TrimtuneError: the input can't be used, or `out` holds something already.
        StepFailed: the fit failed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrimtuneError(f"out: {out} is {'not empty' if out.is_dir() else 'a file'}.",
                            "Allowed: a folder that is absent or empty; nothing is overwritten.",
                            "Choose another folder, or move what is there away.")
    use = Use(name=method.replace("-", "_"), config=config or {}, given=config or {})
    refuse_packing(packing, task, (use,), Place("packing"))
    low, high = parts.load("method", use.name).LEARNING_RATES
    rate = learning_rate if learning_rate is not None else float(f"{math.sqrt(low * high):.2g}")
    fit: dict[str, Any] = dict(epochs=epochs, batch_size=batch_size, max_length=max_length, precision=precision,
                               patience=patience, class_weights=class_weights, packing=packing)
    spec = check(DataSpec, {"train": train, "validation": validation, "test": test, **(data or {})}, Place("data"))
    study = Study(name="tune", model=model, task=task, data=spec, tune=(use,), trim=((),), engine=(), fit=Fit(**fit),
                  budget=Budget(trials=1, seeds=1), seed=seed)
    rank, processes = launched()
    if rank:  # torchrun's other processes only fit
        with tempfile.TemporaryDirectory() as folder:
            _fit(use, study, rate, processes, Store(Path(folder)))
        return {}
    scratch = out.parent / f".{out.name}.part"
    scratch.mkdir(parents=True, exist_ok=True)
    for finished in scratch.glob("tune-*") if processes > 1 else ():  # the other processes can't know of it, and would wait
        shutil.rmtree(finished)
    store = Store(scratch, watch)
    with store.locked(out.name):
        try:
            made, rows, facts = _fit(use, study, rate, processes, store)
            part = parts.load("task", task)
            found = {"method": use.name, part.METRIC: part.metric(_test_score(made, use, study, rate, rows, store)),
                     f"validation_{part.METRIC}": part.metric(made.facts["validation_score"]),
                     **{name: made.facts[name] for name in _FACTS},
                     "seconds": made.seconds, "peak_memory_mb": made.peak_memory_mb, "learning_rate": rate, "epochs": epochs,
                     "seed": seed, "rows": facts.rows, "notes": list(facts.notes), "out": str(out)}
            _hand_over(made, found, scratch, out)
            return found
        finally:
            if not any(scratch.glob("checkpoints/*/*-*")):  # a fit that was stopped in its middle goes on from there
                shutil.rmtree(scratch, ignore_errors=True)


def _fit(use: Use, study: Study, rate: float, processes: int, store: Store) -> tuple[Artifact, Artifact, DataFacts]:
    rows, facts = prepared(study, store)
    base = base_of(study, facts.labels, store)
    return Fits(use, study, base, rows, store, processes)(rate, study.seed), rows, facts


def _test_score(made: Artifact, use: Use, study: Study, rate: float, rows: Artifact, store: Store) -> float:
    """On the test rows."""
    ledger = Search(method=use, trials_asked=1, trials=(), seeds_asked=1, learning_rate=rate, seconds=made.seconds,
                    seeds=(search.seed_fit(made),))
    reading = reading_of(study, rows)
    score = score_seeds(ledger, rows, study.fit.max_length, study.task, store, reading).seeds[0].test_score
    if score is None:
        raise StepFailed(next(step.cause for step in store.steps if step.step == "score"))
    return score


def _card(made: Artifact, found: dict[str, Any], name: str) -> str:
    """What the folder is and how it is loaded, by someone who has transformers alone."""
    task = parts.load("task", made.config["task"])
    adapter = (made.folder / task.ADAPTER).is_dir()
    return _CARD.format(
        name=name, auto=task.AUTO_CLASS, peft="from peft import PeftModel\n" if adapter else "",
        adapter=f'model = PeftModel.from_pretrained(model, "{name}/{task.ADAPTER}")\n' if adapter else "",
        test_rows=found["rows"]["test"], metrics=METRICS, metric=task.METRIC, score=found[task.METRIC],
        template=_template(made, name), example=task.example(made.folder, made.config["max_length"]),
        model_name=made.config["model_name"],
        **{key: found[key] for key in ("method", "learning_rate", "epochs_run", "epochs", "seed", "precision")})


def _template(made: Artifact, name: str) -> str:
    """The line that gives the tokenizer the template of the rows, where they had one; the study's may not be its own."""
    line = f'tokenizer.chat_template = json.load(open("{name}/{READING}"))["template"]\n'
    return f"import json\n\n{line}" if reading_in(made.folder).get("template") else ""


def _hand_over(made: Artifact, found: dict[str, Any], scratch: Path, out: Path) -> None:
    """`out` in one move, so that it is whole or absent."""
    shutil.rmtree(scratch / "out", ignore_errors=True)
    (scratch / "out").mkdir()
    link_tree(made.folder, scratch / "out")
    write_new(scratch / "out" / "README.md", _card(made, found, out.name))
    write_new(scratch / "out" / METRICS, json.dumps({**found, "out": out.name}, indent=1) + "\n")
    if out.exists():
        out.rmdir()
    (scratch / "out").rename(out)
    shutil.rmtree(scratch / "checkpoints", ignore_errors=True)
