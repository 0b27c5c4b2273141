"""What the study's limits leave over, and what they would have to be for the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trimtune.choose.bounds import Bound
from trimtune.errors import unknown
from trimtune.records import Limit
from trimtune.results import Row


def check(require: Sequence[Limit], rows: Sequence[Row]) -> None:
    """Raises TrimtuneError for a limit on a reading that no candidate has. With nothing measured, nothing is known."""
    known = {name for row in rows for name in row.readings}
    for limit in require:
        if known and limit.reading not in known:
            raise unknown("reading", limit.reading, known, f"require: {limit}")


def broken(bounds_: Sequence[Bound]) -> list[Bound]:
    """Those that the candidate is not inside of."""
    return [bound for bound in bounds_ if not bound.inside]


def unjudged(bounds_: Sequence[Bound]) -> bool:
    """Whether some limits are neither kept nor broken, and none is broken as far as anybody knows."""
    found = broken(bounds_)
    return bool(found) and all(bound.value is None for bound in found)


def reason(bound: Bound) -> str:
    """`latency_p50_ms 12.3 > 8`, `accuracy 0.84 < parent's 0.86 - 0.01`, or that it can't be judged"""
    limit = bound.limit
    if bound.value is None or bound.reading is None:
        return f"{limit} can't be judged, {bound.lacking}"
    opposite = {"<=": ">", "<": ">=", ">=": "<", ">": "<="}[limit.op]
    if bound.parent is None:
        return f"{limit.reading} {figure(bound.reading, limit.value)} {opposite} {limit.value:g}"
    asked, end = _plus(bound.parent, limit.value, limit), _plus(bound.parent, bound.value, limit)
    told = f"{figure(bound.reading)} ({'down' if limit.op == '>=' else 'up'} to {figure(end, asked)})" if limit.surely else \
        figure(bound.reading, asked)
    whose = f" ({bound.elsewhere})" if bound.elsewhere else ""
    return f"{limit.reading} {told} {opposite} parent's {figure(bound.parent)}{limit.margin}{whose}"


def excess(bound: Bound) -> float:
    """By which part of the limit a candidate is beyond it: 0.5 for 12 where 8 is asked; infinite where it can't be judged.

    Against a parent: by which part of the parent's reading."""
    if bound.value is None:
        return math.inf
    beyond = 0.0 if bound.inside else abs(bound.value - bound.limit.value)
    if bound.limit.percent:
        return beyond / 100
    return beyond / max(abs(bound.limit.value if bound.parent is None else bound.parent), 1e-9)


def nearest(rows: Sequence[Row], bounds_: Mapping[str, Sequence[Bound]]) -> Row | None:
    """The candidate whose largest relative violation is the smallest; None if each has a limit that can't be judged."""
    def worst(row: Row) -> float:
        return max(map(excess, bounds_[row.name]), default=0.0)

    ordered = sorted(rows, key=lambda row: (worst(row), len(broken(bounds_[row.name])), row.name))
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


def _plus(base: float, more: float, limit: Limit) -> float:
    return base * (1 + more / 100) if limit.percent else base + more


def figure(value: float, beside: float | None = None) -> str:
    """Three digits, or as many as it takes to differ from the figure that it is set beside."""
    return next((text for digits in range(3, 8) if (text := f"{value:.{digits}g}") and (beside is None or float(text) != beside)),
                repr(value))
