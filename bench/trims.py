"""Trims and chains of them on one tuned model, on three engines: quality, size, speed, memory and verdict of each.

    python bench/trims.py helpdesk
    python bench/trims.py sst2 --rows 2000

One study: MiniLM tuned in full, the chains below, measured in turns. Prints the table that the report shows, and whether some
chain is an eighth of its parent's bytes, some chain answers 2.5 times the rows per second of the fastest untrimmed engine, both
at 1.5 points of accuracy or less, and int8 is within half a point. With `sst2 --rows N` some students are taught on the other
training rows too, as texts without labels. Writes bench/results/trims-SET.json and trims-SET.md.
"""

from __future__ import annotations

import argparse
import csv
import json
from itertools import islice
from pathlib import Path
from typing import Any

import trimtune
from trimtune.choose.speeds import THROUGHPUT, Speeds
from trimtune.report import tables
from trimtune.results import Result, Row
from trimtune.screen import watching

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
STUDENT = {"distill": {"layers": 3}}
CHAINS: list[Any] = [
    "none", "bf16", "fp16", "int8", "int8_static", "int8_qat", "int4", "ternary", "binary", "prune_ffn", "prune_heads",
    {"prune_ffn": {"epochs": 0}}, {"prune_heads": {"epochs": 0}}, ["prune_ffn", "prune_heads"],
    ["prune_ffn", "prune_heads", "int8"], "prune_width", ["prune_width", "int8"], "low_rank", ["low_rank", "int8"],
    ["prune_vocabulary", "int8"], ["prune_vocabulary", "low_rank", "int8"], STUDENT, [STUDENT, "int8"],
    ["prune_vocabulary", STUDENT, "int8"], ["prune_vocabulary", STUDENT, "prune_ffn", "int8"], "prune_weights",
    ["prune_weights", "sparse_int8"]]
SKIP = ["*full+prune_[fhv]*@torch_eager", "*low_rank*@torch_eager", "*distill*@torch_eager", "*width*@torch_eager",
        "*int8_*@torch_eager", "*prune_weights@o*", "*sparse_int8@o*", "*ary@o*", "*bf16@onnx_runtime", "*fp16@onnx_runtime",
        "*int4@openvino_ir", "*epochs=0*@openvino_ir"]
"""what two faster engines run as well, and formats that an engine doesn't have"""
SHOWN = ("accuracy", "size_mb", "latency_p50_ms", "latency_p95_ms", THROUGHPUT, "peak_memory_mb",
         "load_ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=("helpdesk", "sst2"))
    parser.add_argument("--rows", type=int, default=0, help="training rows; 0: all")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    asked = parser.parse_args()
    chains = CHAINS + (taught(texts(asked.set, asked.rows, asked.runs)) if asked.set == "sst2" and asked.rows else [])
    study = {"name": f"trims-{asked.set}", "data": rows(asked.set, asked.rows, asked.runs), "tune": ["full"], "trim": chains,
             "engine": ["torch_eager", "onnx_runtime", "openvino_ir"], "skip": SKIP,
             "fit": {"epochs": 3, "max_length": 64}, "budget": {"trials": 3, "seeds": 1, "minutes": 5},
             "require": {"load_ms": "<= 60000"}}  # never in the way: load times are read where a limit asks for them
    with watching() as watch:
        result = trimtune.run(study, runs=asked.runs, watch=watch)
    here = f"{asked.runs.absolute()}/"
    found = {"machine": result.machine, "set": asked.set, "training_rows": result.data.rows["train"], "n": len(result.truth),
             "lines": [line(row, result) for row in result.rows], "reached": reached(result)}
    found = json.loads(json.dumps(found).replace(here, ""))
    asked.out.mkdir(exist_ok=True)
    (asked.out / f"trims-{asked.set}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    table = markdown(found["lines"])
    (asked.out / f"trims-{asked.set}.md").write_text(table, encoding="utf-8")
    print(table)
    for question, answer in found["reached"].items():
        print(f"{question}: {answer}")


def rows(name: str, count: int, folder: Path) -> Any:
    """The study's `data`; of SST-2 the first so many training rows."""
    if name == "helpdesk":
        return name
    files = {split: str(DATA / name / f"{file}.csv") for split, file in
             (("train", "train"), ("validation", "dev"), ("test", "test"))}
    if count:
        with Path(files["train"]).open(encoding="utf-8", newline="") as file:
            kept = list(islice(csv.reader(file), count + 1))
        folder.mkdir(parents=True, exist_ok=True)
        files["train"] = str((folder / f"{name}-{count}.csv").absolute())
        with Path(files["train"]).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(kept)
    return files


def texts(name: str, count: int, folder: Path) -> Path:
    """The training rows after the first so many, without their labels: what a user has who labelled `count` of them."""
    with (DATA / name / "train.csv").open(encoding="utf-8", newline="") as file:
        others = [cells["text"] for cells in islice(csv.DictReader(file), count, None)]
    folder.mkdir(parents=True, exist_ok=True)
    written = (folder / f"{name}-more.txt").absolute()
    written.write_text("".join(f"{' '.join(text.split())}\n" for text in others), encoding="utf-8")
    return written


def taught(more: Path) -> list[Any]:
    """Students that are taught on texts without labels as well."""
    wide, thin, deep = ({"distill": {"layers": layers, "ffn": ffn, "unlabelled": str(more)}}
                        for layers, ffn in ((3, 1.0), (3, 0.5), (4, 0.5)))
    return [[wide, "int8"], [thin, "int8"], ["prune_vocabulary", thin, "int8"], ["prune_vocabulary", deep, "int8"]]


def line(row: Row, result: Result) -> dict[str, Any]:
    verdict, whole = result.choice.verdict(row.name), tables.kinds(result, row)[1]
    readings = {name: row.readings[name].model_dump(include={"value", "low", "high", "n"}) for name in row.readings}
    return {"candidate": row.name, "status": row.status, "cause": row.cause, "packed": row.packed, "precision": row.precision,
            "readings": readings,
            "verdict": f"{verdict.kind}{f' (whole chain: {whole})' if whole else ''}: {verdict.words}" if verdict else ""}


def markdown(lines: list[dict[str, Any]]) -> str:
    head = ["candidate", "accuracy, % (95%)", "MB", "p50 ms", "p95 ms", "rows/s", "peak MB", "load ms", "verdict"]
    table = [head, ["---"] * len(head)]
    for each in lines:
        if each["status"] != "measured":
            table.append([each["candidate"], *["–"] * len(SHOWN), f"{each['status']}: {each['cause']}"])
            continue
        read = {name: each["readings"].get(name, {}).get("value") for name in SHOWN}
        share = each["readings"]["accuracy"]
        figures = ["–" if read[name] is None else f"{read[name]:.4g}" for name in SHOWN[1:]]
        interval = f"{100 * share['value']:.1f} ({100 * share['low']:.1f}–{100 * share['high']:.1f})"
        table.append([each["candidate"], interval, *figures, each["verdict"]])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table) + "\n"


def reached(result: Result) -> dict[str, str]:
    """The three targets, each with the candidate that comes nearest."""
    measured = [row for row in result.rows if row.status == "measured" and row.packed != "simulated"]
    plain = [row for row in measured if not row.candidate.trims]
    parent = max(value(row, "accuracy") for row in plain)
    whole = {row.candidate.engine.label: value(row, "size_mb") for row in plain}
    fastest = max(plain, key=lambda row: value(row, THROUGHPUT))
    good = [row for row in measured if row.candidate.trims and value(row, "accuracy") >= parent - 0.015]
    small = min(good, key=lambda row: value(row, "size_mb"), default=None)
    fast = max(good, key=lambda row: value(row, THROUGHPUT), default=None)
    eight = [row for row in measured if row.candidate.trims_label == "int8"]
    return {
        "smallest within 1.5 points": "none" if small is None else
        f"{small.name}: 1/{max(whole.values()) / value(small, 'size_mb'):.1f} of the largest parent's bytes, "
        f"1/{whole[small.candidate.engine.label] / value(small, 'size_mb'):.1f} of its own on that engine, "
        f"{100 * (value(small, 'accuracy') - parent):+.1f} points",
        "fastest within 1.5 points": "none" if fast is None else
        f"{fast.name}: {times(fast, fastest, result)} the rows per second of {fastest.name}, the fastest untrimmed, "
        f"{100 * (value(fast, 'accuracy') - parent):+.1f} points",
        "int8": ", ".join(f"{row.candidate.engine.label} {100 * (value(row, 'accuracy') - parent):+.1f} points" for row in eight)}


def times(fast: Row, slow: Row, result: Result) -> str:
    """`2.71 times (2.52–2.86)`, batch by batch."""
    found = Speeds(result.by_round).ratio(slow.name, fast.name, THROUGHPUT)
    assert found is not None
    return f"{found.value:.2f} times ({found.low:.2f}–{found.high:.2f})"


def value(row: Row, reading: str) -> float:
    found = row.value(reading)
    assert found is not None
    return found


if __name__ == "__main__":
    main()
