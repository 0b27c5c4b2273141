"""Why a candidate isn't taken, in one line."""

from __future__ import annotations

from collections.abc import Sequence

from trimtune.choose.bounds import Bound
from trimtune.choose.compare import Compared
from trimtune.choose.limits import broken, reason, unjudged
from trimtune.choose.rank import READING, best_scored, equal
from trimtune.choose.speeds import TIMED, Speeds
from trimtune.choose.wording import MORE, behind, quality, ratio, same_speed, spanned
from trimtune.records import Prefer
from trimtune.results import Row


def failure(row: Row) -> str:
    return f"{row.status}: {row.cause or 'no cause was recorded'}"


def rejection(row: Row, picked: Row | None, inside: Sequence[Row], compared: Compared, bounds: Sequence[Bound],
              prefer: Prefer, speeds: Speeds) -> str:
    """Why this candidate isn't taken; `bounds` are the limits as they stand for it."""
    if row.status != "measured":
        return failure(row)
    outside = broken(bounds)
    if outside or picked is None:
        place = "not shown to be inside" if unjudged(bounds) else "outside"
        return f"{place} the limits: " + "; ".join(map(reason, outside))
    if prefer == "quality":
        better = [other for other in inside if compared.better(other.name, row.name)]
        if better:
            return _beaten(row, picked if picked in better else best_scored(better, compared), compared)
        slower, larger = (ratio(row, picked, reading, MORE, speeds) for reading in (READING[prefer], "size_mb"))
        costs = slower or ", ".join(filter(None, (same_speed(row, picked, speeds), larger))) or "no better in any reading"
        return f"tied in {quality(compared)} with {picked.name}, {costs}"
    # the pick may not be shown to be better in what is preferred, and another one be
    for other in (picked, *inside):
        costs = "" if equal(row, other, READING[prefer], speeds) else ratio(row, other, READING[prefer], MORE, speeds)
        if costs and (other is picked or READING[prefer] in TIMED):
            return f"{costs} than {other.name}"
    if row.value(READING[prefer]) is None:
        return f"has no {READING[prefer]}, which is what is preferred"
    worse = compared.score(picked.name) > compared.score(row.name)
    otherwise = behind(compared, row.name, picked.name) if worse else "no better otherwise"
    return f"equal to {picked.name} in {READING[prefer]}, {otherwise}"


def _beaten(row: Row, by: Row, compared: Compared) -> str:
    return f"{behind(compared, row.name, by.name)} than {by.name} ({spanned(compared, row.name, by.name)})"
