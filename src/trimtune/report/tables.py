"""The candidates as lines of a table: ordered, numbered, judged against the limits. The page and the Markdown show these."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtune.choose.limits import violated
from trimtune.records import Reading, Result, Row
from trimtune.report import words

QUALITY = ("accuracy", "macro_f1", "worst_class_accuracy")
COSTS = ("latency_p50_ms", "latency_p95_ms", "throughput_rows_per_s", "peak_memory_mb", "size_mb")
"""what a simulated trim says nothing real about"""
SHOWN = ("accuracy", "macro_f1", *COSTS, "fit_seconds")
_PREFERRED = {"quality": "accuracy", "latency": "latency_p50_ms", "size": "size_mb", "cost": "fit_seconds"}


@dataclass(frozen=True)
class Cell:
    """One reading as text; `sort` is its plain value, `detail` its interval, `over` the limit that it breaks."""

    reading: str
    label: str
    text: str
    detail: str = ""
    note: str = ""
    sort: float | None = None
    over: str = ""


@dataclass(frozen=True)
class Line:
    """One candidate. `number` stands beside its point in the plots; `span` places its interval bar, in percent of the cell."""

    number: int
    row: Row
    cells: tuple[Cell, ...]
    inside: bool
    tied: bool
    role: str
    span: tuple[float, float, float] | None = None

    @property
    def simulated(self) -> bool:
        return self.row.packed == "simulated"


def inside_limits(result: Result, row: Row) -> bool:
    """Whether a measured row keeps every limit. A reading that was refused (None) keeps none."""
    return row.status == "measured" and not violated(row, result.study.require)


def lines(result: Result) -> list[Line]:
    """Every candidate: the picked one, the runner-up, those inside the limits, those outside, those without readings.

    Within each group the preferred reading decides, best first.
    """
    ordered = sorted(result.rows, key=lambda row: _order(result, row))
    domain = span_domain(result)
    return [Line(number=number, row=row, cells=cells(result, row, SHOWN), inside=inside_limits(result, row),
                 tied=row.name in result.choice.tied, role=_role(result, row), span=_span(row, domain))
            for number, row in enumerate(ordered, start=1)]


def _role(result: Result, row: Row) -> str:
    return {result.choice.picked: "picked", result.choice.runner_up: "runner-up"}.get(row.name, "")


def _order(result: Result, row: Row) -> tuple[int, float]:
    group = {"picked": 0, "runner-up": 1}.get(_role(result, row), 2)
    if row.status != "measured":
        return 4, 0.0
    if group == 2 and not inside_limits(result, row):
        group = 3
    reading = row.readings.get(_PREFERRED[result.study.prefer]) or row.readings.get("accuracy")
    value = reading.value if reading else None
    if reading is None or value is None:
        return group, math.inf
    return group, -value if reading.better == "higher" else value


def cells(result: Result, row: Row, names: tuple[str, ...], real: bool = True) -> tuple[Cell, ...]:
    """The named readings of a row. With `real`, a simulated candidate's speed and size are left out: they are not real."""
    return tuple(_cell(result, row, name, real) for name in names)


def _cell(result: Result, row: Row, name: str, real: bool) -> Cell:
    reading, label = row.readings.get(name), words.title(name)
    if reading is None:
        return Cell(name, label, "–")
    if real and row.packed == "simulated" and name in COSTS:
        return Cell(name, label, "simulated")
    broken = next((limit for limit in violated(row, result.study.require) if limit.reading == name), None)
    return Cell(name, label, words.value(reading), words.interval(reading), _short(reading), reading.value,
                f"limit {words.bound(result, broken)}" if broken else "")


def _short(reading: Reading) -> str:
    return reading.note if reading.value is None else ""


def span_domain(result: Result) -> tuple[float, float]:
    """The common scale of the accuracy bars: all intervals fit, with a little air."""
    found = [reading for row in result.rows if (reading := row.readings.get("accuracy")) and reading.value is not None]
    low = min((_ends(reading)[0] for reading in found), default=0.0)
    high = max((_ends(reading)[1] for reading in found), default=1.0)
    air = 0.04 * (high - low) or 0.01
    return low - air, high + air


def _ends(reading: Reading) -> tuple[float, float]:
    value = reading.value or 0.0
    return (value if reading.low is None else reading.low), (value if reading.high is None else reading.high)


def _span(row: Row, domain: tuple[float, float]) -> tuple[float, float, float] | None:
    reading = row.readings.get("accuracy")
    if reading is None or reading.value is None:
        return None
    low, high = _ends(reading)
    first, last = domain
    return tuple(round(100 * (value - first) / (last - first), 2) for value in (low, reading.value, high))  # type: ignore[return-value]


def samples(result: Result, reading: str) -> str:
    """`n = 400`, over all candidates that have the reading; nothing for what is counted once, such as bytes."""
    found = words.spread(row.readings[reading].n for row in result.rows if reading in row.readings)
    return f"n = {found}" if found not in ("", "1") else ""


def further(result: Result) -> list[str]:
    """Readings that the main table has no column for, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in result.rows for name in row.readings if name not in SHOWN))


def failures(result: Result) -> list[tuple[str, list[str]]]:
    """(cause, what it stopped): candidates without readings, methods and steps that failed, those of one cause together."""
    found: dict[str, list[str]] = {}
    for row in result.rows:
        if row.status != "measured":
            found.setdefault(row.cause or f"{row.status}, without a stated cause", []).append(row.name)
    for search in result.searches:
        if search.cause:
            found.setdefault(search.cause, []).append(f"method {search.method.label}")
        for trial in search.trials:
            if trial.cause:
                found.setdefault(trial.cause, []).append(f"{search.method.label}, trial at {words.rate(trial.learning_rate)}")
    for step in result.steps:
        if step.cause and step.cause not in found:
            found.setdefault(step.cause, []).append(f"step {step.step} {step.part}")
    return list(found.items())
