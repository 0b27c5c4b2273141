"""The noise test of the measuring protocol: is one speed called one, and are 10% found?

    python bench/protocol.py --json bench/results/protocol.json          # 100 trials each way, 20 minutes at most
    python bench/protocol.py --trials 3 --minutes 2

Each trial is a session as a run has it: fresh processes that take turns in rounds. Three candidates are in it: an encoder of 8
layers (MiniLM's, some of them twice), the very same artifact once more, and one with a ninth: 12.5% more work but for
tokenizing and embedding, which makes it 10% slower (`ratio` tells). All run in int8. Every second trial runs beside a process
that keeps one core busy, with the first two alone. Trials are shortened: a turn has three rows instead of four, and speed alone
is measured.

The first two must be called tied in 95 of 100 trials, the third slower in 90. Beside this the table shows what the latencies' own
intervals would have said: `apart` where they don't overlap. `ratio` is the median over the trials.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trimtune import parts
from trimtune.choose.speeds import Speeds, overlap
from trimtune.engines._export import exported
from trimtune.measure import _machine, latency
from trimtune.measure._session import Job, run_session
from trimtune.process import warm_up
from trimtune.records import Artifact, Candidate, DataSpec, Study, Use
from trimtune.results import Turns
from trimtune.store import Store
from trimtune.study.model import locate
from trimtune.study.stored import prepared
from trimtune.tasks._base import base_of, reading_of

LAYERS = 8
PAIRS = {"same": "the same artifact twice", "slower": f"{LAYERS + 1} layers against {LAYERS}"}
FLOORS = {"same": 0.95, "slower": 0.90}
HEAD = ("load", "pair", "trials", "right", "share", "wanted", "ratio", "its interval", "apart by own intervals")
CONFIG = latency.Config(rows=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100, help="without load, and as many with it")
    parser.add_argument("--minutes", type=float, default=20, help="no trial begins after so many")
    parser.add_argument("--engine", default="onnx_runtime")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    ends, found = time.monotonic() + 60 * asked.minutes, list[dict[str, Any]]()
    warm_up()
    with TemporaryDirectory() as home:
        job = prepare(Path(home), asked.engine)
        for number in range(asked.trials):
            for load in (False, True):
                if time.monotonic() > ends:
                    break
                with busy() if load else contextlib.nullcontext():
                    found += [{"trial": number, "load": load, **line} for line in trial(job, ["same"] if load else [*PAIRS])]
    table = [summed([line for line in found if (line["load"], line["pair"]) == (load, pair)], load, pair)
             for load, pair in ((False, "same"), (False, "slower"), (True, "same"))]
    for cells in (HEAD, *(list(line.values()) for line in table)):
        print("  ".join(f"{cell!s:>{width}}" for cell, width in zip(cells, (8, 24, 6, 5, 6, 6, 6, 15, 22), strict=True)))
    if asked.json:
        told = {"machine": _machine.describe(), "engine": asked.engine, "rounds": latency.ROUNDS, "config": CONFIG.model_dump(),
                "table": table, "trials": found}
        asked.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def prepare(home: Path, engine: str) -> Job:
    """Both models exported, and the session that the trials repeat."""
    store, made = Store(home / "store"), dict[str, Artifact]()
    use = Use(name=engine, config=parts.load("engine", engine).Config().model_dump())
    for name, layers in (("one", LAYERS), ("slower", LAYERS + 1)):
        study = Study(name="protocol", model=str(deepened(home / name, layers)), task="text_classification", tune=(), trim=(),
                      engine=(use,), data=DataSpec(train="helpdesk"))
        rows, facts = prepared(study, store)
        candidate = Candidate(method=Use(name="untuned"), trims=(Use(name="int8"),), engine=use)
        made[name] = exported(candidate, base_of(study, facts.labels, store), rows, study, store)
    runnable = {"one": made["one"], "same": made["one"], "slower": made["slower"]}
    return Job(runnable, dict.fromkeys(runnable, use), rows, study.fit.max_length, study.task, reading_of(study, rows),
               {"latency": CONFIG.model_dump()}, store.folder / "logs", store.watch)


def deepened(folder: Path, layers: int) -> Path:
    """MiniLM with so many layers: its own in order, from the first again where it has no more."""
    from safetensors.torch import load_file, save_file

    source = locate("minilm")
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    own, before = config["num_hidden_layers"], "encoder.layer."
    state = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if before not in name}
    for layer in range(layers):
        mark = f"{before}{layer % own}."
        kept |= {name.replace(mark, f"{before}{layer}."): tensor.clone() for name, tensor in state.items() if mark in name}
    (folder / "model.safetensors").unlink()
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}), encoding="utf-8")
    return folder


def trial(job: Job, pairs: list[str]) -> list[dict[str, Any]]:
    """One session: of these pairs the ratio and its interval, and whether the latencies' own intervals lie apart."""
    taken = run_session(job, ["one", *pairs], None, None)
    samples = {name: each["latency"] for name, each in taken.samples.items()}
    if taken.failures:
        raise SystemExit(f"a candidate could not be measured: {taken.failures}")
    speeds = Speeds({name: Turns(ms=tuple(map(tuple, latency.by_round(each, CONFIG))), session=taken.sessions[name],
                                 slowed=taken.rounds[name].slowed) for name, each in samples.items()})
    own = {name: latency.summarize(each, CONFIG)["latency_p50_ms"] for name, each in samples.items()}
    found = []
    for pair in pairs:
        ratio = speeds.ratio(pair, "one")
        assert ratio is not None
        found.append({"pair": pair, "ratio": ratio.value, "low": ratio.low, "high": ratio.high,
                      "right": ratio.tied if pair == "same" else ratio.low > 1, "slowed": taken.rounds[pair].slowed,
                      "repeated": taken.rounds[pair].repeated, "apart": not overlap(own[pair], own["one"])})
    return found


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """A process that keeps one of our cores busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def summed(lines: list[dict[str, Any]], load: bool, pair: str) -> dict[str, Any]:
    """One row of the table."""
    right = sum(line["right"] for line in lines)
    ratio, low, high = (statistics.median([line[key] for line in lines] or [0.0]) for key in ("ratio", "low", "high"))
    return {"load": "one core" if load else "none", "pair": PAIRS[pair], "trials": len(lines), "right": right,
            "share": f"{right / max(len(lines), 1):.0%}", "wanted": f"{FLOORS[pair]:.0%}", "ratio": f"{ratio:.3f}",
            "interval": f"{low:.3f}–{high:.3f}", "apart": sum(line["apart"] for line in lines)}


if __name__ == "__main__":
    main()
