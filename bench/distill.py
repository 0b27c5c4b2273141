"""What each part of distilling brings: accuracy on test rows, agreement with the teacher, MB, milliseconds beside the teacher.

    python bench/distill.py helpdesk
    python bench/distill.py sst2 --rows 2000 --epochs 5

The teacher is MiniLM, tuned in full (learning rate 1e-4, 3 epochs) and kept in --runs, as the students are; every student has the
same rows, layers and seed. Latency: one test row at a time through torch_eager, teacher and student taking turns.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from trimtune import parts, single
from trimtune.measure import _machine
from trimtune.records import DataSpec
from trimtune.store import key_of
from trimtune.study import data
from trimtune.tasks import text_classification as task
from trimtune.tune.recovery import Setting

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {"helpdesk": {"train": "helpdesk"}, "sst2": {"train": "train.csv", "validation": "dev.csv", "test": "test.csv"}}
KINDS: dict[str, dict[str, Any]] = {
    "before its fit": {"epochs": 0},
    "labels alone": {"teacher": 0.0, "states": 0.0},
    "and answers": {"teacher": 0.5, "states": 0.0},
    "and answers and states": {"teacher": 0.5, "states": 1.0},
    "answers and states alone": {"teacher": 1.0, "states": 1.0},
    "and answers and attention": {"teacher": 0.5, "attention": 1.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("--rows", type=int, default=0, help="training rows; 0: all")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), help="of the table's rows, or settings as JSON")
    parser.add_argument("--no-times", action="store_true")
    parser.add_argument("--runs", type=Path, default=Path("runs/distill"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    asked = parser.parse_args()
    folder = asked.runs / f"{asked.set}{asked.rows or ''}"
    teacher, rows = tuned(asked.set, asked.rows, folder)
    test, lines = data.load(rows).test, []
    taught, right = answers(teacher, test.texts), np.array(test.labels)
    lines.append({"student": "the teacher", "accuracy": float((taught == right).mean()), "megabytes": megabytes(teacher)})
    show(lines[-1])
    students = [(kind, rate, seed) for kind in asked.kinds for rate in asked.rates for seed in asked.seeds]
    for kind, rate, seed in students:
        config = {"layers": asked.layers, "epochs": asked.epochs, "learning_rate": rate,
                  **(KINDS.get(kind) or json.loads(kind))}
        student = folder / key_of(config=config, seed=seed)[:12]
        facts = parts.load("trim", "distill").run(student, teacher, config, Setting(rows, max_length=64, seed=seed))
        found = answers(student, test.texts)
        lines.append({"student": kind, "seed": seed, "accuracy": float((found == right).mean()),
                      "agreement": float((found == taught).mean()), "megabytes": megabytes(student), "config": config,
                      **{name: facts["recovery"].get(name) for name in ("validation_score", "curve", "train_seconds")}})
        show(lines[-1])
    if not asked.no_times:
        lines.append({"p50_ms": dict(zip(("teacher", "student"), p50_ms([teacher, student], test.texts[:200]), strict=True))})
        print(lines[-1])
    asked.out.mkdir(exist_ok=True)
    found_ = {"machine": _machine.describe(), "set": asked.set, "rows": asked.rows, "lines": lines}
    (asked.out / f"distill-{asked.set}.json").write_text(json.dumps(found_, indent=1) + "\n", encoding="utf-8")


def show(line: dict[str, Any]) -> None:
    rate = line.get("config", {}).get("learning_rate", 0)
    print(f"{line['student'][:60]:<32} rate {rate:<7g} seed {line.get('seed', 0)} accuracy {100 * line['accuracy']:5.1f} "
          f"agreement {100 * line.get('agreement', 1):5.1f} {line['megabytes']:.1f} MB {line.get('train_seconds') or 0:.0f} s",
          flush=True)


def tuned(name: str, rows: int, folder: Path) -> tuple[Path, Path]:
    """The teacher's folder and that of the rows; made once."""
    spec = {split: file if file == name else str(DATA / name / file) for split, file in SETS[name].items()}
    if not (folder / "teacher").exists():
        folder.mkdir(parents=True, exist_ok=True)
        if rows:
            with Path(spec["train"]).open(encoding="utf-8", newline="") as file:
                kept = list(islice(csv.reader(file), rows + 1))
            spec["train"] = str(folder / "train.csv")
            with Path(spec["train"]).open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows(kept)
        data.save(data.read(DataSpec(**spec), 0), folder / "rows")
        single.tune(out=folder / "teacher", method="full", learning_rate=1e-4, epochs=3, max_length=64, **spec)
    return folder / "teacher", folder / "rows"


def answers(folder: Path, texts: list[str]) -> Any:
    """The labels that the model gives, in plain PyTorch."""
    import torch

    model, tokenizer, found = task.load_model(folder), task.load_tokenizer(folder), []
    with torch.inference_mode():
        for at in range(0, len(texts), 64):
            inputs = task.encode(tokenizer, texts[at:at + 64], 64)
            found += model(**{key: torch.from_numpy(value) for key, value in inputs.items()}).logits.argmax(-1).tolist()
    return np.array(found)


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6


def p50_ms(folders: list[Path], texts: list[str]) -> list[float]:
    """One row at a time through torch_eager in float32, on one thread; the folders take turns."""
    import tempfile

    engine, tokenizer = parts.load("engine", "torch_eager"), task.load_tokenizer(folders[0])
    inputs, runs, taken = [task.encode(tokenizer, [text], 64) for text in texts], [], [[] for _ in folders]
    with tempfile.TemporaryDirectory() as scratch:
        for at, folder in enumerate(folders):
            (out := Path(scratch, str(at))).mkdir()
            engine.export(out, folder, {"precision": "fp32"}, "plain", texts[:32], 64)
            runs.append(engine.load(out, 1))
        for one in [*inputs[:20], *inputs]:
            for at, run in enumerate(runs):
                started = time.perf_counter()
                run(one)
                taken[at].append(1000 * (time.perf_counter() - started))
    return [round(statistics.median(times[20:]), 2) for times in taken]


if __name__ == "__main__":
    main()
