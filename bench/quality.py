"""Test accuracy per method on public sets, each learning rate found by the search, median over seeds.

    python bench/quality.py sst2                      # checks the floors: full 88.0, lora 87.5, prefix 85.0, prompt 80.0
    python bench/quality.py clinc150 --trials 2 --seeds 1

Uses the steps of a study, so that fits are kept in --runs and a second call continues. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from trimtune import parts
from trimtune.measure import _machine
from trimtune.measure._seeds import score_seeds
from trimtune.records import Budget, DataSpec, Fit, Study, Use
from trimtune.store import Store
from trimtune.study.stored import prepared
from trimtune.tasks._base import base_of
from trimtune.tune import search

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {"sst2": ("train.csv", "dev.csv", "test.csv"), "clinc150": ("train.csv", "val.csv", "test.csv")}
FLOORS = {"sst2": {"full": 0.880, "lora": 0.875, "prefix": 0.850, "prompt": 0.800}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("--methods", default=",".join(parts.names("method")))
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    asked = parser.parse_args()

    files = [str(DATA / asked.set / name) for name in SETS[asked.set]]
    uses = tuple(Use(name=name, config=parts.load("method", name).Config().model_dump()) for name in asked.methods.split(","))
    study = Study(name=asked.set, model="minilm", task="text_classification", tune=uses, trim=((),), engine=(),
                  data=DataSpec(train=files[0], validation=files[1], test=files[2]),
                  fit=Fit(epochs=asked.epochs, max_length=64),
                  budget=Budget(trials=asked.trials, seeds=asked.seeds, minutes=asked.minutes))
    store = Store(asked.runs / ".store")
    rows, facts = prepared(study, store)
    base = base_of(study, facts.labels, store)
    lines = []
    for method in study.tune:
        ledger, _ = search.tune(method, study, base, rows, store)
        ledger = score_seeds(ledger, rows, study.fit.max_length, study.task, store)
        tests = [fit.test_score for fit in ledger.seeds if fit.test_score is not None]
        lines.append({"method": method.name, "learning_rate": ledger.learning_rate,
                      "test_accuracy_median": statistics.median(tests), "test_accuracy": tests,
                      "validation_accuracy": [fit.validation_score for fit in ledger.seeds],
                      "trials": [trial.model_dump() for trial in ledger.trials], "seconds": round(ledger.seconds, 1),
                      "floor": FLOORS.get(asked.set, {}).get(method.name)})
        last = lines[-1]
        print(f"{asked.set} {method.name:7} lr {last['learning_rate']:<8g} test {last['test_accuracy_median']:.4f} "
              f"{[round(value, 4) for value in tests]} in {last['seconds']:.0f} s  floor {last['floor'] or '-'}", flush=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    budget = {"trials": asked.trials, "seeds": asked.seeds, "epochs": asked.epochs, "minutes": asked.minutes}
    report = {"set": asked.set, "rows": facts.rows, "budget": budget, "machine": _machine.describe(), "methods": lines}
    (asked.out / f"quality-{asked.set}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    missed = [line["method"] for line in lines if line["floor"] and line["test_accuracy_median"] < line["floor"]]
    if missed:
        raise SystemExit(f"below the floor: {', '.join(missed)}")


if __name__ == "__main__":
    main()
