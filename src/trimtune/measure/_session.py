"""One session of measuring: candidates in processes of their own, loaded side by side, taking turns."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.measure import _machine
from trimtune.measure._rounds import Rounds
from trimtune.measure._subject import open_subject, take_turn
from trimtune.outside_load import Meter
from trimtune.process import Watch, Worker, threads
from trimtune.records import Artifact, Use

Samples = dict[str, list[Any]]
"""measure → one sample per round"""

_WORKER_MB, _FOLDER_FACTOR, _MEMORY_SHARE = 400.0, 4.0, 0.6
"""a worker's need is guessed as 400 MB + 4 × its folder; workers alive together may need 60% of what is available"""


@dataclass(frozen=True)
class Job:
    """What all candidates of one call share."""

    runnable: Mapping[str, Artifact]
    engines: Mapping[str, Use]
    rows: Artifact
    max_length: int
    task: str
    reading: dict[str, Any]
    """what beside `max_length` decides how the task's rows become tokens"""
    configs: dict[str, dict[str, Any]]
    """measure → its config, in the order in which they are taken"""
    logs: Path
    watch: Watch


@dataclass
class Taken:
    """What a session brought. `anchors`: candidate → the one it was measured beside, and that one's drift; `sessions`:
    candidate → when the turns began that it took beside others."""

    samples: dict[str, Samples] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    anchors: dict[str, tuple[str, float]] = field(default_factory=dict)
    spent: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    rounds: dict[str, Rounds] = field(default_factory=dict)


def run_session(job: Job, names: list[str], anchor: str | None, reference_ms: float | None) -> Taken:
    """Measure `names` in as many blocks as memory asks for; an anchor goes along in each block that has to be tied to
    figures taken before: the given one in every block, else the first block's first candidate in all later blocks."""
    whole = Taken()
    for block in _blocks(job, names, anchor):
        beside = [anchor] if anchor else []
        begun = datetime.now(UTC).isoformat()
        taken = _block(job, [*beside, *block])
        whole.samples.update({name: taken.samples[name] for name in block if name in taken.samples})
        whole.failures.update({name: taken.failures[name] for name in block if name in taken.failures})
        whole.spent.update({name: taken.spent[name] for name in block if name in taken.spent})
        whole.sessions.update(dict.fromkeys(block, begun))
        whole.rounds.update({name: taken.rounds[name] for name in block if name in taken.rounds})
        if anchor in taken.samples and reference_ms:
            drift = pace_ms(job, taken.samples[anchor]) / reference_ms
            whole.anchors.update(dict.fromkeys(block, (anchor, drift)))
        if anchor is None and taken.samples:
            anchor = next(iter(taken.samples))
            reference_ms = pace_ms(job, taken.samples[anchor])
    return whole


def _blocks(job: Job, names: list[str], anchor: str | None) -> list[list[str]]:
    """Consecutive candidates whose workers fit into the available memory together, with room for an anchor."""
    room = _MEMORY_SHARE * _machine.available_memory_mb()
    needed = {name: _WORKER_MB + _FOLDER_FACTOR * _folder_mb(job.runnable[name])
              for name in ([anchor, *names] if anchor else names)}
    if anchor or sum(needed.values()) > room:
        room -= needed[anchor or names[0]]
    blocks: list[list[str]] = [[]]
    for name in names:
        if blocks[-1] and sum(needed[other] for other in blocks[-1]) + needed[name] > room:
            blocks.append([])
        blocks[-1].append(name)
    return blocks


def _block(job: Job, names: list[str]) -> Taken:
    """Load these candidates side by side and let them take their turns. One that fails leaves; the others go on."""
    taken, workers, clock = Taken(), dict[str, Worker](), dict.fromkeys(names, 0.0)
    samples: dict[str, Samples] = {name: {measure: [] for measure in job.configs} for name in names}
    rounds = {measure: parts.load("measure", measure).ROUNDS for measure in job.configs}
    done, total, told_of = 0, sum(rounds.values()) + 1, Rounds(sum(count for count in rounds.values() if count > 1))
    outside = Meter(lambda: [worker.pid for worker in workers.values()])

    def leave(name: str, error: StepFailed) -> None:
        taken.failures[name] = error.cause
        if name in workers:
            workers.pop(name).close()

    def report(text: str) -> None:
        job.watch({"kind": "progress", "text": f"measuring {len(names)} candidates: {text}", "done": done, "total": total})

    def turns(measure: str, config: dict[str, Any], turn: int) -> None:
        nonlocal done
        done += 1
        report(f"{measure}, round {turn + 1} of {rounds[measure]}")
        # in another order each time, so that nobody always follows the same one
        for name in random.Random(turn).sample(list(workers), len(workers)):
            started = time.perf_counter()
            try:
                samples[name][measure].append(workers[name].ask(take_turn, measure, config, turn))
            except StepFailed as error:
                leave(name, error)
            clock[name] += time.perf_counter() - started

    def forget(measure: str, count: int) -> None:
        nonlocal done
        done -= count
        for name in workers:
            del samples[name][measure][-count:]

    try:
        report("loading")
        for name, error in _start(job, names, workers, clock).items():
            leave(name, error)
        for measure, config in job.configs.items():
            if rounds[measure] == 1:  # nothing is compared by what is taken once, so nobody watches
                turns(measure, config, 0)
            else:
                told_of.watched(rounds[measure], partial(turns, measure, config), partial(forget, measure), outside)
        for name, worker in list(workers.items()):
            try:
                taken.spent[name] = (clock[name], worker.start_seconds, worker.peak_memory_mb())
                taken.samples[name], taken.rounds[name] = samples[name], told_of
            except StepFailed as error:
                leave(name, error)
    finally:
        for worker in workers.values():
            worker.close()
    return taken


def _start(job: Job, names: list[str], workers: dict[str, Worker], clock: dict[str, float]) -> dict[str, StepFailed]:
    """Fill `workers`; loading runs on all cores, since nothing is timed yet. Returns the failures."""
    failures: dict[str, StepFailed] = {}

    def load(name: str) -> None:
        started = time.perf_counter()
        try:
            workers[name].open(open_subject, job.runnable[name].folder, job.engines[name].name, job.rows.folder, job.task,
                               job.max_length, threads(), job.reading)
        except StepFailed as error:
            failures[name] = error
        clock[name] += time.perf_counter() - started

    for name in names:
        try:
            workers[name] = Worker(job.logs / f"measure-{job.runnable[name].key[:16]}.log")
        except StepFailed as error:
            failures[name] = error
    with ThreadPoolExecutor(threads()) as pool:
        list(pool.map(load, list(workers)))
    return failures


def told(job: Job, samples: Samples, what: str) -> Any:
    """What the first measure that has a function of this name makes of its samples; None if none has one."""
    measures = {name: parts.load("measure", name) for name in job.configs}
    return next((getattr(module, what)(samples[name]) for name, module in measures.items() if hasattr(module, what)), None)


def pace_ms(job: Job, samples: Samples) -> float:
    """What tells, taken twice of one candidate, whether the machine has kept its pace."""
    return float(told(job, samples, "pace_ms"))


def _folder_mb(artifact: Artifact) -> float:
    return sum(path.stat().st_size for path in artifact.folder.rglob("*") if path.is_file()) / 1e6
