"""Does speed cost quality? Test accuracy of our fits and the peer's at the same learning rate, rows and steps, several seeds.

    python bench/equal.py sst2 --methods lora,full
    python bench/equal.py clinc150 --methods lora --seeds 2

One epoch, batches of 32. Beside these the two differ: the peer has the model's dropout also where it is frozen, no warm-up and
no weight decay. `--without-dropout` takes its dropout away. `apart` is the difference of the means, `noise` two standard errors
of it over the seeds. Prints a table and adds to bench/results/equal-<set>.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from fit import PEER, peer
from quality import DATA, SETS

from trimtune import parts
from trimtune.measure import _machine
from trimtune.measure._seeds import score_seeds
from trimtune.records import Budget, DataSpec, Fit, Study, Use
from trimtune.results import Search
from trimtune.store import Store
from trimtune.study.stored import prepared
from trimtune.tasks._base import base_of
from trimtune.tune import search
from trimtune.tune.fits import Fits
from trimtune.tune.precision import working_precision

RATES = {"lora": 2e-3, "full": 1e-4, "prefix": 3e-2, "prompt": 3e-2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("--methods", default="lora,full,prefix,prompt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--without-dropout", action="store_true", help="the peer on a model whose dropout is 0")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    asked = parser.parse_args()
    train, validation, test = (str(DATA / asked.set / name) for name in SETS[asked.set])
    with Path(train).open(encoding="utf-8", newline="") as file:
        steps = -(-sum(1 for _ in csv.DictReader(file)) // 32)
    out = asked.out / f"equal-{asked.set}.json"
    report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    for method in asked.methods.split(","):
        name = method + " (the peer without dropout)" * asked.without_dropout
        use = Use(name=method, config=parts.load("method", method).Config().model_dump())
        study = Study(name=asked.set, model="minilm", task="text_classification", tune=(use,), trim=((),), engine=(),
                      data=DataSpec(train=train, validation=validation, test=test), fit=Fit(epochs=1, max_length=64),
                      budget=Budget(trials=1, seeds=asked.seeds))
        with tempfile.TemporaryDirectory() as scratch:
            store = Store(Path(scratch))
            rows, facts = prepared(study, store)
            base = base_of(study, facts.labels, store)
            fit_at = Fits(use, study, base, rows, store)
            flags = ("--model", str(_without_dropout(base.folder, Path(scratch) / "plain"))) if asked.without_dropout else ()
            precision = working_precision(study, store)
            fits = tuple(search.seed_fit(fit_at(RATES[method], seed)) for seed in range(asked.seeds))
            ledger = Search(method=use, trials_asked=1, trials=(), seeds_asked=asked.seeds, seeds=fits, seconds=0.0,
                            learning_rate=RATES[method])
            scored = score_seeds(ledger, rows, 64, study.task, store)
            ours = [fit.test_score for fit in scored.seeds if fit.test_score is not None]
            if len(ours) < asked.seeds:
                raise SystemExit(f"{method}: a fit could not be scored: {[step.cause for step in store.steps if step.cause]}")
            extra = ("--train", train, "--validation", test, "--lr", str(RATES[method]), *flags)
            theirs = [peer(PEER, "encoder", method, steps=steps - 5, warmup=5, precision=precision, attention="eager",
                           extra=(*extra, "--seed", str(seed)))["validation_accuracy"] for seed in range(asked.seeds)]
        apart = statistics.fmean(ours) - statistics.fmean(theirs)
        noise = 2 * math.sqrt((statistics.variance(ours) + statistics.variance(theirs)) / asked.seeds)
        line = {"method": name, "learning_rate": RATES[method], "ours": ours, "peer": theirs, "apart": apart, "noise": noise,
                "seconds": [fit.seconds for fit in fits]}
        mine, other = ([round(100 * one, 2) for one in scores] for scores in (ours, theirs))
        print(f"{asked.set} {name:7} ours {mine} peer {other} apart {100 * apart:+.2f} noise {100 * noise:.2f}", flush=True)
        lines = [other for other in report.get("methods", []) if other["method"] != name]
        report = {"set": asked.set, "steps": steps, "machine": _machine.describe(), "methods": [*lines, line]}
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _without_dropout(base: Path, folder: Path) -> Path:
    """The same model with its dropout at 0."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    return folder


if __name__ == "__main__":
    main()
