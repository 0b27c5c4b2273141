"""What fewer bits cost a classifier: accuracy, bytes and bits of one tuned model in float32, int8, int4, ternary and binary, and
beside the last two a distilled student in int8 that is as small.

    python bench/few_bits.py --shared ../shared --json bench/results/few_bits.json

MiniLM is tuned in full on 2,000 rows of SST-2; each trim then starts from that model, `ternary` and `binary` once without their
fit and once with it, and the 1,821 test rows are answered by the engine that runs the result. Speed is not measured here: a
study does that, with candidates taking turns.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from trimtune import api, parts
from trimtune.measure import _machine
from trimtune.records import DataSpec
from trimtune.ship.predictor import logits_of
from trimtune.study import data
from trimtune.tasks import text_classification as task
from trimtune.tune.recovery import Setting

WANTED = ("none@torch_eager", "int8@torch_eager", "int4@torch_eager", "int4@onnx_runtime", "int4@openvino_ir",
          "ternary:epochs=0@torch_eager", "ternary:epochs=2@torch_eager",
          "binary:epochs=0@torch_eager", "binary:epochs=3@torch_eager",
          "distill:layers=2,epochs=3+int8@torch_eager", "distill:layers=1,epochs=3+int8@torch_eager")
HEAD = ("trim @ engine", "accuracy", "weights MB", "bits/weight", "fit s")
_WEIGHTS = {".safetensors", ".onnx", ".bin"}
_LENGTH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="the folder with data/sst2")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--home", type=Path, help="where the tuned model is kept, and found again")
    parser.add_argument("--only", nargs="*", default=WANTED, help="such as binary:epochs=3@torch_eager; a chain: a+b@engine")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with TemporaryDirectory() as scratch:
        home = asked.home or Path(scratch)
        rows = drawn(asked.shared / "data/sst2", home / "rows", asked.rows)
        if not (home / "tuned").exists():
            spec = {split: str(home / "rows" / f"{split}.csv") for split in ("train", "validation", "test")}
            api.tune(spec["train"], validation=spec["validation"], test=spec["test"], model="minilm", method="full",
                     learning_rate=1e-4, epochs=3, max_length=_LENGTH, out=home / "tuned")
        found = []
        print("  ".join(f"{head:>16}" for head in HEAD))
        for index, wanted in enumerate(asked.only):
            found.append(measured(wanted, home / "tuned", rows, Path(scratch) / str(index)))
            print("  ".join(f"{cell!s:>16}" for cell in found[-1].values()), flush=True)
    if asked.json:
        told = {"machine": _machine.describe(), "rows": asked.rows, "found": found}
        asked.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def drawn(source: Path, folder: Path, count: int) -> Path:
    """The first rows of the training file, and the others whole, as the data step leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        with (source / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(lines[:count + 1] if split == "train" else lines)
    spec = DataSpec(**{split: str(folder / f"{split}.csv") for split in ("train", "validation", "test")})
    data.save(data.read(spec, seed=0), folder)
    return folder


def measured(wanted: str, tuned: Path, rows: Path, home: Path) -> dict[str, Any]:
    """One trim or chain on one engine: `name:key=value,…+name@engine`."""
    chain, engine_name = wanted.split("@")
    engine, texts = parts.load("engine", engine_name), data.load(rows).train.texts
    last, numerics, started = tuned, "plain", time.perf_counter()
    for number, use in enumerate([] if chain == "none" else chain.split("+")):
        name, _, given = use.partition(":")
        trim, folder = parts.load("trim", name), home / f"trimmed{number}"
        folder.mkdir(parents=True)
        config = {key: json.loads(value) for key, value in (pair.split("=") for pair in given.split(",") if pair)}
        trim.run(folder, last, trim.Config(**config).model_dump(), Setting(rows, max_length=_LENGTH))
        last, numerics = folder, trim.NUMERICS or "plain"
    seconds = time.perf_counter() - started
    (home / "engine").mkdir(parents=True)
    fixed = {"precision": "fp32"} if "precision" in engine.Config.model_fields else {}
    facts = engine.export(home / "engine", last, engine.Config(**fixed).model_dump(), numerics, texts[:300], _LENGTH)
    test = data.load(rows).test
    tokenizer = task.load_tokenizer(home / "engine")
    logits_NC = logits_of(engine.load(home / "engine", 1), lambda batch: task.encode(tokenizer, batch, _LENGTH), test.texts)
    stored = sum(path.stat().st_size for path in (home / "engine").rglob("*") if path.suffix in _WEIGHTS)
    return {"candidate": wanted, "accuracy": round(float((logits_NC.argmax(-1) == np.array(test.labels)).mean()), 4),
            "weights_mb": round(stored / 1e6, 2), "bits_per_weight": facts.get("bits_per_weight", ""), "fit_s": round(seconds, 1)}


if __name__ == "__main__":
    main()
