"""What freezing the weights of compiled classifiers brings: milliseconds, memory, and the seconds until they answer.

    python bench/freezing.py --json bench/results/freezing.json

MiniLM with a head at random, compiled in float32 and bf16, each with and without freezing, each in a process of its own; they
take turns. Printed: the median of the rounds' medians, the ratio plain / frozen (above 1: frozen is faster) with a 95% bootstrap
interval over the rounds, the process's own memory, and the seconds of loading without and with inductor's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import cache
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from trimtune.engines import _graph, torch_compiled
from trimtune.measure import _machine
from trimtune.process import Worker, threads
from trimtune.store import link_tree
from trimtune.study.model import locate
from trimtune.tasks import text_classification as task
from trimtune.trim._model_folder import write
from trimtune.tune.precision import dtype

SHAPES = ((1, 16), (1, 32), (32, 32))
CALLS = {1: 30, 32: 5}
"""of a turn, by rows"""
VOCABULARY = 30_000
Loaded = tuple[Any, float]
"""a run of logits, and the seconds of loading it"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall",
                        help="cpu: the time of all threads on their cores, for a machine that has other work; "
                             "set OMP_WAIT_POLICY=PASSIVE, or waiting counts as well")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with TemporaryDirectory() as scratch:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(scratch) / "cache")
        base = Path(scratch) / "base"
        link_tree(locate("minilm"), base)
        task.describe_base(base, [f"label {index}" for index in range(12)])
        folders = {(precision, freezing): written(base, Path(scratch), precision, freezing)
                   for precision in ("fp32", "bf16") for freezing in (False, True)}
        found = measured(folders, asked.rounds, asked.clock)
    print(json.dumps(found, indent=1))
    if asked.json:
        told = {"machine": _machine.describe(), "threads": threads(), "rounds": asked.rounds, "clock": asked.clock,
                "found": found}
        asked.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def written(base: Path, scratch: Path, precision: str, freezing: bool) -> Path:
    """A runnable folder as the engine exports it, without the check that would fill inductor's cache."""
    folder = scratch / f"{precision}-{freezing}"
    folder.mkdir()
    write(task.load_model(base), base, folder, dtype(precision))
    _graph.note(folder, engine="torch_compiled", task="text_classification", numerics="plain", packed="plain",
                precision=precision, freezing=freezing)
    return folder


def measured(folders: dict[Any, Path], rounds: int, clock: str) -> list[dict[str, Any]]:
    cold = {}
    for way, folder in folders.items():
        with Worker() as worker:
            worker.open(loaded, folder)
            cold[way] = worker.ask(seconds)
    workers, warm, taken = {}, {}, {way: {shape: [] for shape in SHAPES} for way in folders}
    try:
        for way, folder in folders.items():
            workers[way] = Worker()
            workers[way].open(loaded, folder)
            warm[way] = workers[way].ask(seconds)
        memory = {way: worker.ask(own_memory) for way, worker in workers.items()}
        for turn in range(rounds):
            order = list(workers)[turn % len(workers):] + list(workers)[:turn % len(workers)]
            for shape in SHAPES:
                for way in order:
                    taken[way][shape].append(median(workers[way].ask(times, shape, clock)))
    finally:
        for worker in workers.values():
            worker.close()
    return [line(*way, taken, memory[way], cold[way], warm[way]) for way in folders]


def loaded(folder: Path) -> Loaded:
    started = time.perf_counter()
    run: Any = torch_compiled.load(folder, threads())
    return run, time.perf_counter() - started


def seconds(opened: Loaded) -> float:
    return opened[1]


def own_memory(opened: Loaded) -> float:
    """MB (10^6 bytes) that no file stands behind, after a call of each shape."""
    for batch, tokens in SHAPES:
        opened[0](inputs(batch, tokens))
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return int(next(one for one in lines if one.startswith("Anonymous:")).split()[1]) * 1024 / 1e6


def times(opened: Loaded, shape: tuple[int, int], clock: str = "cpu") -> list[float]:
    """Milliseconds of calls after one that warms up."""
    now, found = {"wall": time.perf_counter, "cpu": time.process_time}[clock], []
    for _ in range(CALLS[shape[0]] + 1):
        started = now()
        opened[0](inputs(*shape))
        found.append((now() - started) * 1000)
    return found[1:]


@cache
def inputs(batch: int, tokens: int) -> _graph.Inputs:
    return _graph.rows(batch, tokens, VOCABULARY)


def line(precision: str, freezing: bool, taken: dict[Any, Any], memory: float, cold: float, warm: float) -> dict[str, Any]:
    told: dict[str, Any] = {"precision": precision, "freezing": freezing, "memory_mb": round(memory, 1),
                            "cold_s": round(cold, 1), "warm_s": round(warm, 1)}
    for shape in SHAPES:
        mine, plain = (np.array(taken[precision, way][shape]) for way in (freezing, False))
        drawn = np.random.default_rng(0).integers(0, len(mine), (2000, len(mine)))
        low, high = np.percentile(np.median((plain / mine)[drawn], 1), [2.5, 97.5])
        told["{}x{}".format(*shape)] = {"ms": round(float(np.median(mine)), 2), "ratio": round(float(np.median(plain / mine)), 3),
                                        "low": round(float(low), 3), "high": round(float(high), 3)}
    return told


if __name__ == "__main__":
    import freezing  # by its name: the workers import the functions that they run from there

    freezing.main()
