"""The whole protocol with real processes, a real tokenizer and a small engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtune.choose.speeds import THROUGHPUT, Speeds
from trimtune.measure import _protocol, _session, latency, throughput
from trimtune.measure._protocol import measure_all
from trimtune.records import Artifact, Reading, Use
from trimtune.store import Store

ENGINE = Use(name="token_votes")
QUICK = {"quality": {"resamples": 100},
         "latency": {},
         "throughput": {"seconds": 0.0, "settle_seconds": 0.0}}

Make = Callable[..., Artifact]


def measure(store: Store, rows: Artifact, events: list[dict[str, Any]] | None = None, **folders: Artifact,
            ) -> tuple[dict[str, dict[str, Reading]], dict[str, list[int]], dict[str, str]]:
    store.watch = (lambda event: None) if events is None else events.append
    return measure_all(folders, dict.fromkeys(folders, ENGINE), rows, 32, store, configs=QUICK)[:3]


@pytest.mark.slow
def test_readings_predictions_and_failures(store: Store, rows: Artifact, runnable: Make) -> None:
    readings, predictions, failures = measure(
        store, rows, quick=runnable("quick"), slow=runnable("slow", row_ms=2, ballast_mb=120), dead=runnable("dead", die=True),
        nan=runnable("nan", nan=True), narrow=runnable("narrow", classes=2))
    assert list(readings) == ["quick", "slow"]
    assert "killed (signal 9)" in failures["dead"]
    assert "not finite" in failures["nan"]
    assert "shape [32, 2]" in failures["narrow"]
    for found in readings.values():
        assert set(found) >= {"accuracy", "macro_f1", "worst_class_accuracy", "latency_p50_ms", "latency_p95_ms",
                              "throughput_rows_per_s", "peak_memory_mb", "size_mb"}
        assert found["accuracy"].value == 1.0
        assert found["latency_p95_ms"].n >= 200
        assert found["latency_p50_ms"].low <= found["latency_p50_ms"].value <= found["latency_p50_ms"].high
    assert predictions["quick"] == predictions["slow"] == [0, 1, 2] * 20
    quick, slow = readings["quick"], readings["slow"]
    assert slow["latency_p50_ms"].value >= 2 > quick["latency_p50_ms"].low
    assert slow["throughput_rows_per_s"].value < quick["throughput_rows_per_s"].value
    assert 90 < slow["peak_memory_mb"].value - quick["peak_memory_mb"].value < 150
    if quick["private_memory_mb"].value is not None:
        assert 90 < slow["private_memory_mb"].value - quick["private_memory_mb"].value < 150
    weights = runnable("quick").folder
    assert quick["size_mb"].value == pytest.approx(sum(path.stat().st_size for path in weights.iterdir()
                                                       if path.name != "artifact.json") / 1e6)
    assert [step.step for step in store.steps if step.cause] == ["measure"] * 3


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="the load of others is known on Linux alone")
def test_rounds_beside_another_process_are_taken_again_and_said(store: Store, rows: Artifact, runnable: Make) -> None:
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        found = measure_all({"a": runnable("a", row_ms=2)}, {"a": ENGINE}, rows, 32, store, configs=QUICK)
    finally:
        for process in others:
            process.kill()
            process.wait()
    assert "rounds were taken again, since other processes took" in found.readings["a"]["latency_p50_ms"].note
    assert not found.readings["a"]["accuracy"].note
    assert "rounds" not in found.readings["a"]["load_ms"].note, "taken once, and nobody watched"
    assert len(found.by_round["a"].ms) == latency.ROUNDS, "each round once, however often it was taken"
    assert found.by_round["a"].slowed > 1


@pytest.mark.slow
def test_two_speeds_are_told_apart_by_their_rounds_and_one_speed_is_not(store: Store, rows: Artifact, runnable: Make) -> None:
    folders = {"a": runnable("a", row_ms=2), "b": runnable("b", row_ms=2), "slow": runnable("slow", row_ms=4)}
    found = measure_all(folders, dict.fromkeys(folders, ENGINE), rows, 32, store, configs=QUICK).by_round
    assert len({turns.session for turns in found.values()}) == 1
    assert {(len(turns.ms), len(turns.bulk_ms)) for turns in found.values()} == {(latency.ROUNDS, throughput.ROUNDS)}
    speeds = Speeds(found)
    slow, same = speeds.ratio("slow", "a"), speeds.ratio("b", "a")
    assert slow is not None
    assert same is not None
    assert 1 < slow.low <= slow.value <= slow.high
    assert 1.2 < slow.value < 3
    bulk = speeds.ratio("slow", "a", THROUGHPUT)
    assert bulk is not None
    assert bulk.low > 1
    assert same.low < 1.1
    assert same.high > 0.9


@pytest.mark.slow
def test_a_rerun_measures_nothing_and_gives_the_same(store: Store, rows: Artifact, runnable: Make) -> None:
    first = measure(store, rows, a=runnable("a"), b=runnable("b"))
    events: list[dict[str, Any]] = []
    assert measure(store, rows, events, a=runnable("a"), b=runnable("b")) == first
    assert not [event for event in events if event["kind"] == "progress"]


@pytest.mark.slow
def test_a_new_candidate_is_measured_beside_an_old_one(store: Store, rows: Artifact, runnable: Make,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_protocol, "DRIFT_ALLOWED", 1e9)
    before = measure(store, rows, a=runnable("a", row_ms=1), b=runnable("b"))[0]
    events: list[dict[str, Any]] = []
    after = measure(store, rows, events, a=runnable("a", row_ms=1), b=runnable("b"), c=runnable("c"))[0]
    assert {event["text"].split(":")[0] for event in events if event["kind"] == "progress"} == {"measuring 2 candidates"}
    assert (after["a"], after["b"]) == (before["a"], before["b"])
    assert "beside a, which then took " in after["c"]["latency_p50_ms"].note
    assert after["c"]["throughput_rows_per_s"].note
    times = measure_all({name: runnable(name, **({"row_ms": 1} if name == "a" else {})) for name in "abc"},
                        dict.fromkeys("abc", ENGINE), rows, 32, store, configs=QUICK).by_round
    assert times["a"].session == times["b"].session != times["c"].session
    assert (times["a"].drift, f"{times['c'].drift:.2f}×") == (1.0, after["c"]["latency_p50_ms"].note.split()[-4])
    assert "beside" not in after["c"]["accuracy"].note


@pytest.mark.slow
def test_a_machine_that_changed_its_pace_has_all_measured_anew(store: Store, rows: Artifact, runnable: Make) -> None:
    folder = runnable("a", row_ms=2)
    measure(store, rows, a=folder, b=runnable("b"))
    paths = [path for path in store.folder.glob("measure-*/samples.json") if _is_slow(path.read_text())]
    assert len(paths) == 1
    _make_the_past_faster(store, paths[0].parent)
    events: list[dict[str, Any]] = []
    after = measure(store, rows, events, a=folder, b=runnable("b"), c=runnable("c"))[0]
    assert any("measured anew" in event["text"] for event in events if event["kind"] == "note")
    assert after["a"]["latency_p50_ms"].value > 2
    assert "taken later" not in after["c"]["latency_p50_ms"].note


def _is_slow(samples: str) -> bool:
    return min(json.loads(samples)["latency"][0]["ms"]) > 1.9


def _make_the_past_faster(store: Store, home: Any) -> None:
    """As if the machine had been twice as fast when the candidate was measured."""
    from trimtune.store import sha256

    path, record = home / "samples.json", home / "artifact.json"
    samples = json.loads(path.read_text())
    for turn in samples["latency"]:
        turn["ms"] = [ms / 2 for ms in turn["ms"]]
    path.write_text(json.dumps(samples))
    artifact = json.loads(record.read_text())
    artifact["files"]["samples.json"] = sha256(path)
    record.write_text(json.dumps(artifact))


@pytest.mark.slow
def test_candidates_that_do_not_fit_together_are_measured_in_blocks(store: Store, rows: Artifact, runnable: Make,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_session._machine, "available_memory_mb", lambda: 1600.0)
    events: list[dict[str, Any]] = []
    readings = measure(store, rows, events, a=runnable("a"), b=runnable("b"), c=runnable("c"))[0]
    assert list(readings) == ["a", "b", "c"]
    loading = [event["text"] for event in events if event["kind"] == "progress" and event["text"].endswith("loading")]
    assert len(loading) > 1
    assert "beside a" in readings["c"]["latency_p50_ms"].note
