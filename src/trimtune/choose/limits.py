"""What the study's limits leave over, and what they would have to be for the others."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtune.errors import unknown
from trimtune.records import Limit
from trimtune.results import Row


def check(require: Sequence[Limit], rows: Sequence[Row]) -> None:
    """Raises TrimtuneError for a limit on a reading that no candidate has. With nothing measured, nothing is known."""
    known = {name for row in rows for name in row.readings}
    for limit in require:
        if known and limit.reading not in known:
            raise unknown("reading", limit.reading, known, f"require: {limit}")


def violated(row: Row, require: Sequence[Limit]) -> list[Limit]:
    """The limits that a candidate is not inside of. A reading without a value can't be shown to be inside."""
    return [limit for limit in require if not _inside(row, limit)]


def unjudged(row: Row, require: Sequence[Limit]) -> list[Limit]:
    """Those of `violated` on a reading without a value: neither kept nor broken, as far as anybody knows."""
    return [limit for limit in require if row.value(limit.reading) is None]


def not_measured(row: Row, limit: Limit) -> str:
    """`not measured: too few samples, 118 of 200`"""
    found = row.readings.get(limit.reading)
    return f"not measured: {found.note}" if found and found.note else "not measured"


def _inside(row: Row, limit: Limit) -> bool:
    value = row.value(limit.reading)
    return value is not None and limit.allows(value)


def reason(row: Row, limit: Limit) -> str:
    """`latency_p50_ms 12.3 > 8`, or that it can't be judged"""
    value = row.value(limit.reading)
    if value is None:
        return f"{limit} can't be judged, {not_measured(row, limit)}"
    opposite = {"<=": ">", "<": ">=", ">=": "<", ">": "<="}[limit.op]
    return f"{limit.reading} {figure(value, limit.value)} {opposite} {limit.value:g}"


def excess(row: Row, limit: Limit) -> float:
    """By which part of the limit a candidate is beyond it: 0.5 for 12 where 8 is asked; infinite without a value."""
    value = row.value(limit.reading)
    if value is None:
        return math.inf
    return 0.0 if limit.allows(value) else abs(value - limit.value) / max(abs(limit.value), 1e-9)


def nearest(rows: Sequence[Row], require: Sequence[Limit]) -> Row | None:
    """The candidate whose largest relative violation is the smallest; None if none has all the readings."""
    def worst(row: Row) -> float:
        return max((excess(row, limit) for limit in require), default=0.0)

    ordered = sorted(rows, key=lambda row: (worst(row), len(violated(row, require)), row.name))
    return ordered[0] if ordered and worst(ordered[0]) < math.inf else None


def relaxed(limit: Limit, value: float) -> Limit:
    """The limit moved just far enough to let `value` in, rounded away from it to three digits: 8 → 12.4 for 12.34."""
    if abs(value) < 1e-9:
        return limit.model_copy(update={"value": value, "op": {"<": "<=", ">": ">="}.get(limit.op, limit.op)})
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    up = limit.op in ("<=", "<")
    steps = math.ceil(value / unit) if up else math.floor(value / unit)
    moved = limit.model_copy(update={"value": float(f"{steps * unit:.12g}")})
    while not moved.allows(value):
        steps += 1 if up else -1
        moved = limit.model_copy(update={"value": float(f"{steps * unit:.12g}")})
    return moved


def figure(value: float, beside: float | None = None) -> str:
    """Three digits, or as many as it takes to differ from the figure that it is set beside."""
    return next((text for digits in range(3, 8) if (text := f"{value:.{digits}g}") and (beside is None or float(text) != beside)),
                repr(value))
