"""The candidate that a run picked against peers set up by hand on the same tuned model, texts to logits.

    python bench/infer.py runs/helpdesk --json bench/results/infer.json

Peers: ONNX Runtime (float32; int8 dynamic per channel and per tensor, and static), OpenVINO (float32, bf16, int8 by NNCF),
torch.compile (default and max-autotune-no-cudagraphs, float32 and bf16) and plain PyTorch. Each has a process of its own; they
take turns in rounds, in another order each, on the same test texts: one row, and 32 together, tokenizing included. Printed: the
median of the rounds' medians, and the ratio to ours (above 1: ours is faster) with a 95% bootstrap interval over the rounds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import infer_peers as peers
import numpy as np

from trimtune.errors import StepFailed
from trimtune.measure import _machine
from trimtune.process import Worker, threads
from trimtune.ship.source import Source, open_run, read_result, row_of

OURS = "trimtune"
BATCHES = (1, 32)
CALIBRATION = 128
ROWS = {1: 40, 32: 128}
"""texts of a turn, by batch"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder, runs/<study>")
    parser.add_argument("--candidate", help="another than the picked one")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="peers whose names hold one of these words, separated by commas")
    parser.add_argument("--json", type=Path, help="where the table is written, too")
    asked = parser.parse_args()
    result = read_result(asked.run)
    source = open_run(asked.run, result, row_of(result, asked.candidate))
    texts, truth = source.rows.test.texts, source.rows.test.labels
    if len(texts) < BATCHES[-1]:
        parser.error(f"the study has {len(texts)} test rows; {BATCHES[-1]} are needed")
    workers, lacking = opened(source, [word for word in asked.only.split(",") if word])
    try:
        right, taken = {}, {name: {batch: [] for batch in BATCHES} for name in workers}
        for name, worker in workers.items():
            worker.ask(peers.labels, texts, 1)
            right[name] = sum(map(int.__eq__, worker.ask(peers.labels, texts, BATCHES[-1]), truth)) / len(truth)
        for turn in range(asked.rounds):
            order = list(workers)[turn % len(workers):] + list(workers)[:turn % len(workers)]
            for batch in BATCHES:
                drawn = np.random.default_rng(turn).choice(len(texts), ROWS[batch], replace=len(texts) < ROWS[batch])
                for name in order:
                    rows = [texts[row] for row in drawn]
                    taken[name][batch].append(median(workers[name].ask(peers.times, rows, batch)))
            print(f"round {turn + 1} of {asked.rounds}", flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    table = [line(name, right[name], taken[name], taken[OURS]) for name in workers]
    candidate = source.row.name
    print(f"{candidate}: {len(texts)} test rows, {asked.rounds} rounds, {threads()} threads; ratio = the peer's time / ours")
    for one in table:
        print(f"{one['way']:38} accuracy {one['accuracy']:.1%}  " + "   ".join(
            f"{batch:2} {'row ' if batch == 1 else 'rows'} {one[f'ms_{batch}']:7.2f} ms {one[f'ratio_{batch}'][0]:5.2f} "
            f"({one[f'ratio_{batch}'][1]:.2f}–{one[f'ratio_{batch}'][2]:.2f})" for batch in BATCHES))
    for name, cause in lacking.items():
        print(f"{name}: {cause}")
    if asked.json:
        asked.json.write_text(json.dumps({"machine": _machine.describe(), "candidate": candidate, "rows": len(texts),
                                          "rounds": asked.rounds, "ways": table, "lacking": lacking}, indent=1) + "\n",
                              encoding="utf-8")


def opened(source: Source, only: list[str]) -> tuple[dict[str, Worker], dict[str, str]]:
    """Each way in its own process, and why others can't be."""
    tuned, calibration = source.tuned.folder, source.rows.train.texts[:CALIBRATION]
    shared = {"max_length": source.result.study.fit.max_length, "threads": threads()}
    ways: dict[str, tuple[Any, dict[str, Any]]] = {
        OURS: (peers.ours, {"folder": source.runnable.folder, "engine": source.row.candidate.engine.name})}
    for name in ("none", "channel", "tensor", "qdq"):
        said = {"none": "float32", "channel": "int8 dynamic, per channel", "tensor": "int8 dynamic, per tensor",
                "qdq": "int8 static, QDQ"}[name]
        ways[f"ONNX Runtime {said}"] = (peers.onnx_runtime, {"folder": tuned, "quantize": name, "texts": calibration})
    for name in ("f32", "bf16", "int8"):
        ways[f"OpenVINO {name}"] = (peers.openvino, {"folder": tuned, "precision": name, "texts": calibration})
    for dtype in ("float32", "bfloat16"):
        for mode in ("", "default", "max-autotune-no-cudagraphs"):
            name = f"torch.compile {mode}" if mode else "torch"
            ways[f"{name} {dtype}"] = (peers.plain_torch, {"folder": tuned, "dtype": dtype, "compile_": mode})
    workers: dict[str, Worker] = {}
    lacking: dict[str, str] = {}
    for name, (function, arguments) in ways.items():
        if only and name != OURS and not any(word in name for word in only):
            continue
        workers[name] = Worker()
        try:
            workers[name].open(function, **arguments, **shared)
            print(f"opened {name}", flush=True)
        except StepFailed as failure:
            workers.pop(name).close()
            lacking[name] = failure.cause
            if name == OURS:
                raise
    return workers, lacking


def line(name: str, right: float, taken: dict[int, list[float]], ours: dict[int, list[float]]) -> dict[str, Any]:
    """One line of the table: medians in ms, and [ratio, low, high] by batch."""
    found: dict[str, Any] = {"way": name, "accuracy": right}
    for batch in BATCHES:
        found[f"ms_{batch}"] = median(taken[batch])
        found[f"ratio_{batch}"] = interval([theirs / mine for theirs, mine in zip(taken[batch], ours[batch], strict=True)])
        found[f"rounds_ms_{batch}"] = taken[batch]
    return found


def interval(ratios: list[float], resamples: int = 10_000) -> list[float]:
    """The median of the rounds' ratios with its 95% bootstrap interval."""
    drawn = np.random.default_rng(0).choice(ratios, (resamples, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return [float(median(ratios)), float(low), float(high)]


if __name__ == "__main__":
    main()
