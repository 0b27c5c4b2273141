"""Which candidate is taken, among those that are inside the limits."""

from __future__ import annotations

from collections.abc import Sequence

from trimtune.choose.compare import Compared
from trimtune.choose.readings import least, overlap
from trimtune.choose.speeds import LATENCY, THROUGHPUT, TIMED, Speeds
from trimtune.errors import unknown
from trimtune.records import PREFERRED, Prefer, preferable
from trimtune.results import Row

READING: dict[Prefer, str] = {"quality": LATENCY, **PREFERRED}
"""what decides between candidates of equal standing; for all but quality it is what is preferred itself"""

NOISE = {"size_mb": 0.01, "fit_seconds": 0.1}
"""which share of the least one a reading without an interval may be above it and still count as equal: some bytes of a
config file are no reason, nor is a tenth of a fit that was timed once"""


def speed_of(prefer: Prefer) -> str:
    """The reading that is meant where this is preferred and speed is spoken of."""
    return THROUGHPUT if prefer == "throughput" else LATENCY


def check(prefer: Prefer, measured: Sequence[Row]) -> None:
    """Raises TrimtuneError where no candidate has the reading that is preferred."""
    allowed = preferable(name for row in measured for name in row.readings)
    if prefer not in allowed:
        raise unknown("preference", prefer, allowed, "prefer", f"No candidate has a reading {PREFERRED[prefer]}.")


def pick(inside: Sequence[Row], compared: Compared, prefer: Prefer, speeds: Speeds) -> Row | None:
    """The row that is taken, None if there is none.

    quality: of those to whom no other inside is significantly better, the fastest; of those that can't be told from it in speed
    the smallest, then the one with the least latency, then by name.
    Widening the limits only adds candidates, so the new pick is never significantly worse than the old one, which is
    still among them. latency, throughput, size, cost: of those that equal the least within noise, the best, then the
    least in what is preferred, then the faster.
    """
    if prefer == "quality":
        level = least_of(unbeaten(inside, compared), LATENCY, speeds)
        return min(least_of(level, "size_mb", speeds), default=None,
                   key=lambda row: (least(row, LATENCY), least(row, "size_mb"), row.name))
    return min(least_of(inside, READING[prefer], speeds), default=None,
               key=lambda row: (-compared.score(row.name), least(row, READING[prefer]), least(row, LATENCY), row.name))


def least_of(rows: Sequence[Row], reading: str, speeds: Speeds) -> list[Row]:
    """Those that can't be told from the best one in a reading; of speeds, those that no other is shown to be faster than."""
    ordered = sorted(rows, key=lambda row: least(row, reading))
    if reading in TIMED:
        near = [row for row in ordered if not speeds.faster(ordered[0], row, reading)]
        return [row for row in near if not any(speeds.faster(other, row, reading) for other in near)] or near
    return [row for row in ordered if equal(row, ordered[0], reading, speeds)]


def equal(row: Row, lowest: Row, reading: str, speeds: Speeds) -> bool:
    """Whether a reading can't be told from the lowest one: it isn't shown to be slower, or is above it by noise at most."""
    if reading in TIMED:
        return not speeds.faster(lowest, row, reading)
    one, other = least(row, reading), least(lowest, reading)
    return one <= other * (1 + NOISE[reading]) or overlap(row.readings.get(reading), lowest.readings.get(reading))


def unbeaten(inside: Sequence[Row], compared: Compared) -> list[Row]:
    """Those to whom no other one is significantly better. Never empty: nobody beats the best one."""
    places = [compared.names.index(row.name) for row in inside]
    beating_KK = compared.better_KK[places][:, places]
    return [row for place, row in enumerate(inside) if not beating_KK[:, place].any()]


def best_scored(rows: Sequence[Row], compared: Compared) -> Row:
    return min(rows, key=lambda row: (-compared.score(row.name), least(row, LATENCY), row.name))
