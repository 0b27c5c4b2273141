"""Figures in words, shared by the sentences and the reasons."""

from __future__ import annotations

from collections.abc import Sequence

from trimtune.choose.compare import Answers
from trimtune.choose.limits import figure
from trimtune.records import Reading
from trimtune.results import Row

MORE = {"latency_p50_ms": "slower", "size_mb": "larger", "fit_seconds": "longer to tune"}
LESS = {"latency_p50_ms": "faster", "size_mb": "smaller", "fit_seconds": "cheaper to tune"}
MOST = {"latency_p50_ms": "fastest", "size_mb": "smallest", "fit_seconds": "cheapest to tune"}


def ratio(row: Row, other: Row, reading: str, words: dict[str, str]) -> str:
    """`1.8× slower`, `3% larger`; empty where `row`'s reading isn't above `other`'s. Says so if the two can't be told apart."""
    high, low = row.value(reading), other.value(reading)
    if high is None or low is None or high <= low:
        return ""
    if low <= 0:
        return f"{words[reading]} ({figure(high)} instead of {figure(low)})"
    share = 1 - low / high if words is LESS else high / low - 1
    much = f"{high / low:.1f}×" if high / low >= 1.1 else f"{max(100 * share, 0.1):.2g}%"
    unsure = " (their intervals overlap)" if overlap(row.readings.get(reading), other.readings.get(reading)) else ""
    return f"{much} {words[reading]}{unsure}"


def points(compared: Answers, first: Row, second: Row) -> str:
    return f"{100 * compared.difference(first.name, second.name).value:.1f} points"


def percent(share: float | None) -> str:
    return f"{100 * (share or 0.0):.1f}"


def by(excess: float) -> str:
    return f"{100 * excess:.2g}%" if excess < 1 else f"{1 + excess:.1f}×"


def count(rows: Sequence[Row]) -> str:
    return f"{len(rows)} candidate{'s' if len(rows) != 1 else ''}"


def seconds(row: Row) -> str:
    value = row.value("fit_seconds")
    return "an unknown time" if value is None else f"{figure(value)} s"


def overlap(first: Reading | None, second: Reading | None) -> bool:
    """Whether two intervals share a point; without intervals nothing can be called equal."""
    if not first or not second or first.low is None or first.high is None or second.low is None or second.high is None:
        return False
    return first.low <= second.high and second.low <= first.high
