"""What single zeros cost and gain: accuracy by criterion and sparsity, MB as stored, and the time of a row against the parent's.

    python bench/pruned_weights.py --json bench/results/pruned_weights.json

MiniLM tuned in full on helpdesk (one learning rate, one seed), then `prune_weights` with each criterion and sparsity, without
recovery and with it. All steps are kept in --runs, so a second call continues. Accuracy is that of the test rows in float32.
Latency is that of `torch_eager` in float32, one row of 32 tokens, parent and trims taking turns; sizes are whole folders.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from trimtune import parts
from trimtune.engines import _graph, torch_eager
from trimtune.measure import _machine
from trimtune.measure._intervals import wilson
from trimtune.process import threads, warm_up
from trimtune.records import Artifact, DataSpec, Fit, Study, Use
from trimtune.ship import parity
from trimtune.store import Store
from trimtune.study import data
from trimtune.study.stored import prepared
from trimtune.tasks._base import base_of
from trimtune.trim._chain import trimmed
from trimtune.tune.fits import Fits
from trimtune.tune.scoring import score_model

LENGTH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--criteria", default="magnitude,wanda,taylor")
    parser.add_argument("--sparsities", default="0.5,0.8,0.9")
    parser.add_argument("--fours", default="magnitude,wanda", help="criteria that 2:4 is tried with")
    parser.add_argument("--settings", default="{}", help="of the recovered ones, as JSON")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--fits-only", action="store_true", help="no sizes and times")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    warm_up()
    method = Use(name="full", config=parts.load("method", "full").Config().model_dump())
    study = Study(name="zeros", model="minilm", task="text_classification", data=DataSpec(train="helpdesk"), tune=(method,),
                  trim=((),), engine=(), fit=Fit(epochs=asked.epochs, max_length=LENGTH))
    store = Store(asked.runs / ".store")
    rows, facts = prepared(study, store)
    parent = Fits(method, study, base_of(study, facts.labels, store), rows, store)(asked.learning_rate, 0)
    found = {"parent": parent}
    lines: list[dict[str, Any]] = [told("parent", parent, rows, store)]
    for config in configs(asked):
        use = Use(name="prune_weights", config=parts.load("trim", "prune_weights").Config(**config).model_dump())
        name = " ".join(f"{key}={value}" for key, value in config.items()) + ("" if "steps" in config else " default stages")
        found[name] = trimmed([use], parent, rows, study, store)[-1]
        lines.append({**told(name, found[name], rows, store), **config, "seconds": found[name].seconds,
                      "precision": [stage["recovery"].get("precision") for stage in found[name].facts["stages"]]})
    if asked.fits_only:
        return
    whole = [line for line in lines if line.get("epochs") != 0]  # one that answers badly need not be timed
    with TemporaryDirectory() as home:
        runs = {line["name"]: _exported(line, found[line["name"]].folder, rows, Path(home)) for line in whole}
        taken = in_turns(runs, asked.turns)
    for line in whole:
        line["ratio_p50"] = median(taken[line["name"]]) / median(taken["parent"])
        sizes = "  ".join(f"{key[:-3]} {value:.1f} MB" for key, value in line.items() if key.endswith("_mb"))
        accuracy = f"test {line['test_accuracy']:.4f}, in int8 {line['int8_test_accuracy']:.4f}"
        print(f"{line['name']:50} {accuracy}  {sizes}  p50 {line['ratio_p50']:.2f}×", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps({"machine": _machine.describe(), "threads": threads(), "rows": facts.rows,
                                          "lines": lines}, indent=1) + "\n", encoding="utf-8")


def configs(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Without recovery there is nothing to gain from stages."""
    once, mended = {"steps": 1, "epochs": 0}, json.loads(asked.settings)
    free = [{"criterion": criterion, "sparsity": float(sparsity)} for sparsity in asked.sparsities.split(",") if sparsity
            for criterion in asked.criteria.split(",")]
    fours = [{"criterion": criterion, "pattern": "2:4"} for criterion in asked.fours.split(",") if criterion]
    return [{**config, **late} for config in [*free, *fours] for late in (once, mended)]


def told(name: str, model: Artifact, rows: Artifact, store: Store) -> dict[str, Any]:
    """Accuracy of the test rows, from a step of its own."""
    config = {"split": "test", "max_length": LENGTH, "task": "text_classification", "reading": {}}
    made = store.step("score", "full", score_model, {**config, "model": model.folder, "rows": rows.folder}, config=config,
                      parents=(model, rows), code=parts.room_hash("tune"))
    score, count = float(made.facts["score"]), int(rows.facts["rows"]["test"])
    low, high = wilson(round(score * count), count)
    line = {"name": name, "test_accuracy": score, "interval": [round(low, 4), round(high, 4)]}
    print(json.dumps({**line, "seconds": round(model.seconds, 1)}), flush=True)
    return line


def _exported(line: dict[str, Any], source: Path, rows: Artifact, home: Path) -> _graph.Run:
    """The parent or trim on torch_eager in float32, the sizes of its forms, and the accuracy of int8."""
    forms = {"int8": ("int8", "auto"), "sparse_int8": ("sparse_int8", "auto"), "dense_bf16": ("plain", "bf16"),
             "sparse_bf16": ("sparse", "bf16"), "sparse_fp32": ("sparse", "fp32"), "dense_fp32": ("plain", "fp32")}
    texts, truth = data.load(rows.folder).test.texts, np.array(data.load(rows.folder).test.labels)
    for form, (numerics, precision) in forms.items():
        if line["name"] == "parent" and "sparse" in form:
            continue  # it has no zeros
        folder = home / f"{line['name']} {form}"
        torch_eager.export(folder, source, {"precision": precision}, numerics, [], LENGTH)
        line[f"{form}_mb"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
        if form == "int8":
            logits_NC = parity.engine_logits(folder, "torch_eager", "text_classification", texts, LENGTH)
            line["int8_test_accuracy"] = float((logits_NC.argmax(-1) == truth).mean())
    return torch_eager.load(folder, threads())  # type: ignore[return-value]


def in_turns(runs: dict[str, _graph.Run], turns: int) -> dict[str, list[float]]:
    """Seconds of one row of 32 tokens; the first two turns warm up."""
    inputs = _graph.rows(1, 32, 30000)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(turns + 2):
        for name, run in runs.items():
            started = time.perf_counter()
            run(inputs)
            if turn > 1:
                taken[name].append(time.perf_counter() - started)
    return taken


if __name__ == "__main__":
    main()
