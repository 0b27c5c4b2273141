"""Rows of a result, made by hand, for the tests of choosing: it works on records alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtune.choose.compare import answers
from trimtune.records import Better, Candidate, Limit, Reading, Use
from trimtune.results import Row, Turns

N = 400
TRUTH = (0,) * N


def limit(text: str) -> Limit:
    reading, op, value = text.split()
    return Limit(reading=reading, op=op, value=float(value))


def reading(name: str, value: float | None, low: float | None = None, high: float | None = None,
            better: Better = "lower") -> Reading:
    note = "too few samples, 118 of 200" if value is None else ""
    return Reading(name=name, value=value, unit="", better=better, n=200, low=low, high=high, note=note)


def row(method: str, trims: str = "", engine: str = "onnx_runtime", ms: float | None = 10.0, mb: float = 90.0, fit: float = 60.0,
        spread: float = 0.01, rate: float = 100.0, **more: Any) -> Row:
    candidate = Candidate(method=Use(name=method), trims=tuple(Use(name=name) for name in trims.split("+") if name),
                          engine=Use(name=engine))
    bounds = (None, None) if ms is None else (ms * (1 - spread), ms * (1 + spread))
    return Row(candidate=candidate, status="measured", **more, readings={
        "latency_p50_ms": reading("latency_p50_ms", ms, *bounds), "size_mb": reading("size_mb", mb),
        "fit_seconds": reading("fit_seconds", fit), "throughput_rows_per_s": reading("throughput_rows_per_s", rate, 0.95 * rate,
                                                                                    1.05 * rate, better="higher")})


def turns(ms: float, moods: Sequence[float] = (1.0,) * 6, session: str = "one", drift: float = 1.0, rows: int = 5,
          bulk: float = 0.0) -> Turns:
    """Rounds of rows that take 0.8 to 1.2 times `ms`, or `bulk` if many are answered together, each slowed by its mood."""
    times = tuple(tuple(ms * mood * (0.8 + 0.4 * at / max(rows - 1, 1)) for at in range(rows)) for mood in moods)
    return Turns(ms=times, bulk_ms=tuple((bulk * mood,) for mood in moods) if bulk else (), session=session, drift=drift)


def failed(method: str, cause: str, trims: str = "") -> Row:
    candidate = Candidate(method=Use(name=method), trims=tuple(Use(name=name) for name in trims.split("+") if name),
                          engine=Use(name="onnx_runtime"))
    return Row(candidate=candidate, status="failed", cause=cause)


def right(count: int, shift: int = 0, n: int = N) -> tuple[int, ...]:
    """Predictions that are right (0) on `count` rows, starting at row `shift`."""
    wrong = {(index + shift) % n for index in range(count, n)}
    return tuple(1 if index in wrong else 0 for index in range(n))


def predictions(rows: Sequence[Row], *counts: int) -> dict[str, tuple[int, ...]]:
    """Nested: a row that the weaker candidate has right, the stronger one has right too."""
    return {row.name: right(count) for row, count in zip(rows, counts, strict=True)}


def no_worse(rows: Sequence[Row], given: Any, truth: Sequence[int], prefer: str, before: str | None, after: str | None) -> None:
    """Asserts that the pick under wider limits is no worse than the one before, by what is preferred."""
    if before is None:
        return
    assert after is not None
    if prefer == "quality":
        assert not answers(given, truth, [each.name for each in rows]).better(before, after)
        return
    name, noise = {"latency": ("latency_p50_ms", 1.01 / 0.99), "throughput": ("throughput_rows_per_s", 1.05 / 0.95),
                   "size": ("size_mb", 1.01), "cost": ("fit_seconds", 1.1)}[prefer]
    absent = float("inf")
    value = {each.name: absent if (found := each.value(name)) is None else 1 / found if prefer == "throughput" else found
             for each in rows}
    assert value[after] <= value[before] * noise
