"""Each limit as it stands for each candidate: what of the candidate is held against what.

A limit against the parent (`accuracy >= parent - 0.01`) holds a candidate against the same method and engine without trims; where
that was not measured, against the same method without trims on the first engine that was. One without trims is its own parent.
With `surely` what counts is the end of the 95% interval of the paired difference (compare.py, likelihood.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trimtune.choose.compare import Difference
from trimtune.records import Limit
from trimtune.results import Row
from trimtune.tasks._perplexity import perplexity

Paired = Callable[[str, str], Difference]
"""the first candidate's score minus the second one's, by their names"""


@dataclass(frozen=True)
class Bound:
    """A limit as it stands for one candidate."""

    limit: Limit
    reading: float | None
    """the candidate's"""
    value: float | None
    """what the limit allows or not: the reading, or how much more than the parent's it is; None where that can't be judged"""
    lacking: str = ""
    """why it can't be judged"""
    parent: float | None = None
    """the parent's reading"""
    elsewhere: str = ""
    """the parent's name, where it runs on another engine"""

    @property
    def inside(self) -> bool:
        """Whether the limit is kept. What can't be judged can't be shown to be inside."""
        return self.value is not None and self.limit.allows(self.value)


def bounds_of(row: Row, require: Sequence[Limit], rows: Sequence[Row] = (), paired: Paired | None = None) -> tuple[Bound, ...]:
    """Each limit as it stands for the candidate.

    Args:
        rows: where its parent is looked for.
        paired: what `surely` asks.
    """
    return tuple(_bound(row, limit, rows, paired) for limit in require)


def parent_of(row: Row, rows: Sequence[Row], reading: str) -> Row | None:
    """The candidate whose reading a limit against the parent takes; None if none was measured."""
    if not row.candidate.trims:
        return row
    plain = [other for other in rows if not other.candidate.trims and other.candidate.method == row.candidate.method
             and other.value(reading) is not None]
    return next((other for other in plain if other.candidate.engine == row.candidate.engine), plain[0] if plain else None)


def _bound(row: Row, limit: Limit, rows: Sequence[Row], paired: Paired | None) -> Bound:
    value = row.value(limit.reading)
    if value is None:
        found = row.readings.get(limit.reading)
        return Bound(limit, None, None, f"not measured: {found.note}" if found and found.note else "not measured")
    if not limit.parent:
        return Bound(limit, value, value)
    parent = parent_of(row, rows, limit.reading)
    base = parent.value(limit.reading) if parent else None
    if parent is None or base is None:
        return Bound(limit, value, None, "its parent without trims was not measured")
    if parent is row:
        return Bound(limit, value, 0.0, parent=base)
    more = value - base
    if limit.surely:
        if paired is None:
            return Bound(limit, value, None, "nothing is known of its single rows", base)
        more = _sure(limit, base, paired(row.name, parent.name))
    if limit.percent:
        more *= 100 / max(base, 1e-9)
    elsewhere = "" if parent.candidate.engine == row.candidate.engine else parent.name
    return Bound(limit, value, round(more, 9), parent=base, elsewhere=elsewhere)


def _sure(limit: Limit, base: float, difference: Difference) -> float:
    """The worse end of the difference: of a fraction's own, or of a perplexity's from that of the log-likelihoods."""
    return difference.low if limit.op == ">=" else base * (perplexity(-difference.low) - 1)
