"""Readings side by side: which one is better, and whether two can be told apart by their own intervals."""

from __future__ import annotations

import math

from trimtune.records import Reading
from trimtune.results import Row


def least(row: Row, reading: str) -> float:
    """A reading's value for sorting, the best one first: one that is absent comes last."""
    found = row.readings.get(reading)
    if found is None or found.value is None:
        return math.inf
    return found.value if found.better == "lower" else 1 / found.value if found.value > 0 else math.inf


def overlap(first: Reading | None, second: Reading | None) -> bool:
    """Whether two intervals share a point; without intervals nothing can be called equal."""
    if not first or not second or first.low is None or first.high is None or second.low is None or second.high is None:
        return False
    return first.low <= second.high and second.low <= first.high
