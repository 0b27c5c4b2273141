"""What static int8's calibration costs in memory, and what its ways are worth: each export in a fresh process.

    python bench/calibration.py --json bench/results/calibration.json

MiniLM is tuned in full to the help desk rows. Memory: the highest resident memory of the process that exports, less what it had
before, for float32, dynamic int8 and each calibration by few and by many rows. There are 1,152 training rows, so more are made
by repeating them; `long` joins texts until each row has 128 tokens, as rows of that length would be. Accuracy: the 480 test rows.
Latency: one row at a time, the engines taking turns, on whatever else the machine is doing: compare within one run only.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import calibration as here  # this file by its own name, under which fresh processes find it
import numpy as np

from trimtune import api, parts
from trimtune.measure import _machine
from trimtune.process import Worker, threads
from trimtune.records import DataSpec
from trimtune.ship.predictor import logits_of
from trimtune.store import link_tree
from trimtune.study import data
from trimtune.tasks import text_classification as task
from trimtune.tune.recovery import Setting

KINDS = ("minmax", "percentile", "entropy", "mse")
WANTED = ("none@onnx_runtime", "int8@onnx_runtime",
          *(f"int8_static:calibration={kind},rows={rows}@onnx_runtime" for kind in KINDS for rows in (32, 300, 10_000)),
          "int8_static:calibration=mse,rows=32,long=1@onnx_runtime", "int8_static:calibration=mse,rows=2000,long=1@onnx_runtime",
          "none@openvino_ir", "int8@openvino_ir",
          *(f"int8_static:calibration={kind},rows={rows}@openvino_ir" for kind in ("minmax", "percentile", "mse")
            for rows in (32, 300)),
          "int8_static:calibration=minmax,rows=10000@openvino_ir")
_LENGTH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="where the tuned model is kept, and found again")
    parser.add_argument("--only", nargs="*", default=WANTED)
    parser.add_argument("--sst2", type=Path, help="a folder with train.csv, dev.csv and test.csv, instead of the help desk rows")
    parser.add_argument("--rounds", type=int, default=20, help="in each, every engine answers ten rows; 0 times nothing")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with TemporaryDirectory() as scratch:
        home = asked.home or Path(scratch)
        rows = kept(asked.sst2, home)
        found = []
        for index, wanted in enumerate(asked.only):
            found.append({"candidate": wanted, **exported(wanted, home / "tuned", rows, Path(scratch) / str(index))})
            print(found[-1], flush=True)
        engines = {line["candidate"]: Path(scratch) / str(index) / "engine" for index, line in enumerate(found)}
        if asked.rounds:
            with Worker() as worker:
                for line, taken in zip(found, worker.call(here.timed, engines, rows, asked.rounds), strict=True):
                    line["p50_ms"] = taken
        for line in found:
            print("  ".join(f"{cell!s:>12}" for cell in line.values()), flush=True)
    if asked.json:
        told = {"machine": _machine.describe(), "threads": threads(), "length": _LENGTH,
                "training_rows": len(data.load(rows).train.texts), "data": "sst2" if asked.sst2 else "helpdesk", "found": found}
        asked.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def kept(sst2: Path | None, home: Path) -> Path:
    """The rows as the data step leaves them, and beside them a tuned model, if it isn't there yet."""
    folder = home / "rows"
    if not folder.exists():
        folder.mkdir(parents=True)
        spec = ({"train": str(sst2 / "train.csv"), "validation": str(sst2 / "dev.csv"), "test": str(sst2 / "test.csv")} if sst2
                else {"train": "helpdesk"})
        whole = data.read(DataSpec(**spec), seed=0)
        few = data.Split(whole.train.texts[:2000], whole.train.labels[:2000])
        data.save(data.Rows(few, whole.validation, whole.test, whole.facts), folder)
        files = {}
        for split in ("train", "validation", "test"):
            files[split] = home / f"{split}.jsonl"
            chosen = getattr(data.load(folder), split)
            lines = [json.dumps({"text": text, "label": whole.facts.labels[label]})
                     for text, label in zip(chosen.texts, chosen.labels, strict=True)]
            files[split].write_text("\n".join(lines) + "\n", encoding="utf-8")
        api.tune(str(files["train"]), validation=str(files["validation"]), test=str(files["test"]), model="minilm", method="full",
                 learning_rate=1e-4, epochs=3, max_length=_LENGTH, out=home / "tuned")
    return folder


def exported(wanted: str, tuned: Path, rows: Path, home: Path) -> dict[str, Any]:
    """One export, `name:key=value,…@engine`, in a fresh process; what it took, and its accuracy by another process."""
    use, engine = wanted.split("@")
    name, _, given = use.partition(":")
    config = dict(pair.split("=") for pair in given.split(",") if pair)
    long = bool(config.pop("long", False))
    (home / "trimmed").mkdir(parents=True)
    (home / "engine").mkdir()
    numerics = "plain"
    if name == "none":
        link_tree(tuned, home / "trimmed")
    else:
        trim = parts.load("trim", name)
        trim.run(home / "trimmed", tuned, trim.Config(**config).model_dump(), Setting(rows, max_length=_LENGTH))
        numerics = trim.NUMERICS
    count = int(config.get("rows", 300))
    with Worker() as worker:
        found = worker.call(here.export, engine, home / "engine", home / "trimmed", numerics, rows, count, long)
    with Worker() as worker:
        right = worker.call(here.accuracy, engine, home / "engine", rows)
    size = sum(path.stat().st_size for path in (home / "engine").rglob("*") if path.suffix in {".onnx", ".bin"})
    return {**found, "accuracy": right, "weights_mb": round(size / 1e6, 2)}


def export(engine: str, folder: Path, source: Path, numerics: str, rows: Path, count: int, long: bool) -> dict[str, Any]:
    """Seconds, and the highest resident memory beyond what this process had before."""
    texts = data.load(rows).train.texts
    texts = joined(texts, count, source) if long else list(islice(cycle(texts), max(count, len(texts))))
    fixed = {"precision": "fp32"} if engine == "openvino_ir" else {}
    _machine.reset_peak()
    before, started = _machine.peak_mb(), time.perf_counter()
    facts = parts.load("engine", engine).export(folder, source, fixed, numerics, texts, _LENGTH)
    return {"rows": facts.get("calibration_rows", 0), "tokens": facts.get("calibration_tokens", 0),
            "seconds": round(time.perf_counter() - started, 1), "peak_mb": round(_machine.peak_mb() - before)}


def joined(texts: list[str], count: int, source: Path) -> list[str]:
    """`count` rows of as many tokens as fit."""
    tokenizer, stream = task.load_tokenizer(source), cycle(texts)
    found = []
    for _ in range(count):
        parts_ = [next(stream)]
        while len(tokenizer(" ".join(parts_))["input_ids"]) < _LENGTH:
            parts_.append(next(stream))
        found.append(" ".join(parts_))
    return found


def accuracy(engine: str, folder: Path, rows: Path) -> float:
    """Share of test rows answered right, in batches as a study has them."""
    test, tokenizer = data.load(rows).test, task.load_tokenizer(folder)
    logits_NC = logits_of(parts.load("engine", engine).load(folder, threads()),
                          lambda batch: task.encode(tokenizer, batch, _LENGTH), test.texts)
    return round(float((logits_NC.argmax(-1) == np.array(test.labels)).mean()), 4)


def timed(folders: dict[str, Path], rows: Path, rounds: int) -> list[float]:
    """The median milliseconds of one row without its tokens, by engine; they take turns by tens of rows."""
    runs = [parts.load("engine", name.split("@")[1]).load(folder, threads()) for name, folder in folders.items()]
    tokenizer = task.load_tokenizer(next(iter(folders.values())))
    inputs = [task.encode(tokenizer, [text], _LENGTH) for text in data.load(rows).test.texts[:10 * (rounds + 1)]]
    taken: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds + 1):
        for run, times in zip(runs, taken, strict=True):
            for one in inputs[10 * turn:10 * turn + 10]:
                started = time.perf_counter()
                run(one)
                if turn:
                    times.append((time.perf_counter() - started) * 1000)
    return [round(median(times), 3) for times in taken]


if __name__ == "__main__":
    main()
