"""Does mixed precision hold a limit that uniform few bits break? One tuned model, uniform formats against mixed ones.

    python bench/mixed.py --sets helpdesk sst2 --shared ../shared --json bench/results/mixed.json

MiniLM is tuned in full on the help desk set, and on 2,000 rows of SST-2. No candidate has a fit of its own. `lost` is what the
engine that runs the result loses on validation rows, as the trim judges it (see its docstring); `test` its accuracy on test rows,
which no trim has seen, with the paired interval of its difference from the parent. Speed is not measured here: a study does that,
with candidates taking turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from few_bits import drawn

from trimtune import api, parts
from trimtune.choose.compare import paired_difference
from trimtune.measure import _machine
from trimtune.records import DataSpec
from trimtune.ship.predictor import logits_of
from trimtune.store import link_tree
from trimtune.study import data
from trimtune.tasks import text_classification as task
from trimtune.trim._judges import lost
from trimtune.tune.recovery import Setting

UNIFORM: tuple[tuple[str, dict[str, Any]], ...] = (
    ("none", {}), ("int4", {}), ("ternary", {"epochs": 0}), ("int8", {}), ("binary", {"epochs": 0}))
MIXED: tuple[tuple[str, dict[str, Any]], ...] = tuple(
    ("mixed", config) for config in ({"low": "ternary"}, {"low": "int4"}, {"low": "ternary", "unit": "block"},
                                     {"low": "int4", "group": 128}, {"low": "binary"}))
HEAD = ("trim", "test", "lost", "weights MB", "bits/weight", "kept", "seconds")
_LENGTH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="the folder with data/sst2")
    parser.add_argument("--sets", nargs="*", default=["helpdesk", "sst2"])
    parser.add_argument("--limits", nargs="*", type=float, default=[0.5], help="points that may be lost")
    parser.add_argument("--rows", type=int, default=256, help="validation rows that damages are measured on")
    parser.add_argument("--most", type=int, help="stop after so many candidates of a set")
    parser.add_argument("--home", type=Path, help="where the tuned models are kept, and found again")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    told: dict[str, Any] = {"machine": _machine.describe(), "limits": asked.limits, "found": {}}
    for name in asked.sets:
        with TemporaryDirectory() as scratch:
            home = (asked.home or Path(scratch)) / name
            rows = prepared(name, asked.shared, home)
            parent = logits(exported("plain", home / "tuned", Path(scratch) / "parent"), rows)
            told["found"][name] = found = []
            print("  ".join([f"{HEAD[0]:<70}", *(f"{head:>12}" for head in HEAD[1:])]))
            shared = [{"limit": limit, "rows": asked.rows} for limit in asked.limits]
            wanted = [*UNIFORM, *((trim, {**config, **given}) for given in shared for trim, config in MIXED)]
            for index, (trim, config) in enumerate(wanted[:asked.most]):
                found.append(measured(trim, config, home / "tuned", rows, Path(scratch) / str(index), parent))
                print(line(found[-1]), flush=True)
                if asked.json:
                    asked.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def prepared(name: str, shared: Path, home: Path) -> Path:
    """The folder of the set's rows as the data step leaves them; the tuned model lies beside it, made once."""
    if name == "helpdesk":
        rows, given = home / "rows", {"train": "helpdesk"}
        rows.mkdir(parents=True, exist_ok=True)
        data.save(data.read(DataSpec(train="helpdesk"), seed=0), rows)
    else:
        rows = drawn(shared / "data" / name, home / "rows", 2000)
        given = {split: str(rows / f"{split}.csv") for split in ("train", "validation", "test")}
    if not (home / "tuned").exists():
        api.tune(**given, model="minilm", method="full", learning_rate=1e-4, epochs=3, max_length=_LENGTH, out=home / "tuned")
    return rows


def exported(numerics: str, source: Path, folder: Path) -> Path:
    """What torch_eager makes of a model folder, in float32 where the numerics are plain."""
    folder.mkdir(parents=True)
    engine = parts.load("engine", "torch_eager")
    engine.export(folder, source, engine.Config(precision="fp32").model_dump(), numerics, [], _LENGTH)
    return folder


def logits(folder: Path, rows: Path) -> dict[str, np.ndarray]:
    """Logits [N, C] of the validation and of the test rows."""
    tokenizer, run, read = task.load_tokenizer(folder), parts.load("engine", "torch_eager").load(folder, 1), data.load(rows)
    return {split: logits_of(run, lambda batch: task.encode(tokenizer, batch, _LENGTH), getattr(read, split).texts)
            for split in ("validation", "test")}


def measured(name: str, config: dict[str, Any], tuned: Path, rows: Path, home: Path,
             parent: dict[str, np.ndarray]) -> dict[str, Any]:
    """One trim, and what its engine answers beside its parent."""
    (home / "trimmed").mkdir(parents=True)
    started, facts, numerics = time.perf_counter(), {}, "plain"
    if name == "none":
        link_tree(tuned, home / "trimmed")
    else:
        trim = parts.load("trim", name)
        facts = trim.run(home / "trimmed", tuned, trim.Config(**config).model_dump(), Setting(rows, max_length=_LENGTH))
        numerics = trim.NUMERICS or "plain"
    seconds = time.perf_counter() - started
    folder = exported(numerics, home / "trimmed", home / "engine")
    notes = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
    answers, read = logits(folder, rows), data.load(rows)
    apart = lost(*(torch.from_numpy(some["validation"]) for some in (parent, answers)), torch.tensor(read.validation.labels))
    told = {key: facts[key] for key in ("kept", "met", "lost", "uniform", "judged", "damage", "caveat") if key in facts}
    return {"trim": name, "config": config, "packed": notes["packed"], "precision": notes["precision"],
            "test": compared(answers["test"], parent["test"], read.test.labels),
            "validation": {name: round(value, 4) for name, value in asdict(apart).items()},
            "weights_mb": round((folder / "model.safetensors").stat().st_size / 1e6, 2),
            "bits_per_weight": notes.get("bits_per_weight", ""), "trim_s": round(seconds, 1), **told}


def compared(own_NC: np.ndarray, parent_NC: np.ndarray, labels: Sequence[int]) -> dict[str, float]:
    """Accuracy, and the difference from the parent's with its 95% interval, in points."""
    own_N, parent_N = (some.argmax(-1) == np.array(labels) for some in (own_NC, parent_NC))
    apart = paired_difference(int((own_N & ~parent_N).sum()), int((parent_N & ~own_N).sum()), len(labels))
    return {"rows": len(labels), "accuracy": round(100 * float(own_N.mean()), 2), "difference": round(100 * apart.value, 2),
            "low": round(100 * apart.low, 2), "high": round(100 * apart.high, 2)}


def line(found: dict[str, Any]) -> str:
    named = f"{found['trim']} {found['config'] or ''}"
    test, kept = found["test"], f"{len(found['kept'])}/{len(found['damage'])}" if "kept" in found else ""
    cells = (f"{test['accuracy']} ({test['difference']:+}: {test['low']:+} … {test['high']:+})", found["validation"]["points"],
             found["weights_mb"], found["bits_per_weight"], kept, found["trim_s"])
    return "  ".join([f"{named:<70}", *(f"{cell!s:>12}" for cell in cells)])


if __name__ == "__main__":
    main()
