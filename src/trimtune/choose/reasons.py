"""Why a candidate isn't taken, in one line."""

from __future__ import annotations

from collections.abc import Sequence

from trimtune.choose.compare import Answers
from trimtune.choose.limits import reason, unjudged, violated
from trimtune.choose.rank import READING, equal, most_accurate
from trimtune.choose.wording import MORE, ratio
from trimtune.records import Limit, Prefer
from trimtune.results import Row


def failure(row: Row) -> str:
    return f"{row.status}: {row.cause or 'no cause was recorded'}"


def rejection(row: Row, picked: Row | None, inside: Sequence[Row], compared: Answers, require: Sequence[Limit],
              prefer: Prefer) -> str:
    """Why this candidate isn't taken."""
    if row.status != "measured":
        return failure(row)
    broken = violated(row, require)
    if broken or picked is None:
        place = "not shown to be inside" if broken == unjudged(row, require) else "outside"
        return f"{place} the limits: " + "; ".join(reason(row, limit) for limit in broken)
    if prefer == "quality":
        better = [other for other in inside if compared.better(other.name, row.name)]
        if better:
            return _beaten(row, picked if picked in better else most_accurate(better, compared), compared)
        behind = ratio(row, picked, READING[prefer], MORE) or ratio(row, picked, "size_mb", MORE) or "no better in any reading"
        return f"tied in accuracy with {picked.name}, {behind}"
    behind = "" if equal(row, picked, READING[prefer]) else ratio(row, picked, READING[prefer], MORE)
    if behind:
        return f"{behind} than {picked.name}"
    if row.value(READING[prefer]) is None:
        return f"has no {READING[prefer]}, which is what is preferred"
    less = compared.accuracy(picked.name) - compared.accuracy(row.name)
    otherwise = f"{100 * less:.1f} points less accurate" if less > 0 else "no better otherwise"
    return f"equal to {picked.name} in {READING[prefer]}, {otherwise}"


def _beaten(row: Row, by: Row, compared: Answers) -> str:
    found = compared.difference(by.name, row.name)
    return (f"{100 * found.value:.1f} points less accurate than {by.name} "
            f"(95% interval {100 * found.low:.1f} to {100 * found.high:.1f})")
