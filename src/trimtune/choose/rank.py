"""Which candidate is taken, among those that are inside the limits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtune.choose.compare import Compared
from trimtune.choose.wording import overlap
from trimtune.records import Prefer
from trimtune.results import Row

READING: dict[Prefer, str] = {"quality": "latency_p50_ms", "latency": "latency_p50_ms", "size": "size_mb", "cost": "fit_seconds"}
"""what decides between candidates of equal standing; for all but quality it is what is preferred itself"""

NOISE = {"latency_p50_ms": 0.0, "size_mb": 0.01, "fit_seconds": 0.1}
"""which share of the least one a reading without an interval may be above it and still count as equal: some bytes of a
config file are no reason, nor is a tenth of a fit that was timed once"""


def pick(inside: Sequence[Row], compared: Compared, prefer: Prefer) -> Row | None:
    """The row that is taken, None if there is none.

    quality: of those to whom no other inside is significantly better, the fastest (then the smallest, then by name).
    Widening the limits only adds candidates, so the new pick is never significantly worse than the old one, which is
    still among them. latency, size, cost: of those that equal the least within noise, the best, then the faster.
    """
    if prefer == "quality":
        return min(unbeaten(inside, compared), default=None,
                   key=lambda row: (least(row, READING[prefer]), least(row, "size_mb"), row.name))
    lowest = min(inside, default=None, key=lambda row: least(row, READING[prefer]))
    level = [row for row in inside if lowest is not None and equal(row, lowest, READING[prefer])]
    return min(level, default=None, key=lambda row: (-compared.score(row.name), least(row, READING[prefer]),
                                                     least(row, "latency_p50_ms"), row.name))


def equal(row: Row, lowest: Row, reading: str) -> bool:
    """Whether a reading can't be told from the lowest one: their intervals overlap, or it is above it by noise at most."""
    one, other = least(row, reading), least(lowest, reading)
    return one <= other * (1 + NOISE[reading]) or overlap(row.readings.get(reading), lowest.readings.get(reading))


def unbeaten(inside: Sequence[Row], compared: Compared) -> list[Row]:
    """Those to whom no other one is significantly better. Never empty: nobody beats the best one."""
    places = [compared.names.index(row.name) for row in inside]
    beating_KK = compared.better_KK[places][:, places]
    return [row for place, row in enumerate(inside) if not beating_KK[:, place].any()]


def best_scored(rows: Sequence[Row], compared: Compared) -> Row:
    return min(rows, key=lambda row: (-compared.score(row.name), least(row, "latency_p50_ms"), row.name))


def least(row: Row, reading: str) -> float:
    """A reading's value for sorting: one that is absent comes last."""
    value = row.value(reading)
    return math.inf if value is None else value
