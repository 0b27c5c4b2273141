"""The choice in words that need no statistics, two sentences at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trimtune.choose.bounds import Bound
from trimtune.choose.compare import Compared
from trimtune.choose.limits import broken, excess, figure, reason, relaxed
from trimtune.choose.rank import READING, speed_of
from trimtune.choose.readings import least
from trimtune.choose.speeds import LATENCY, THROUGHPUT, Speeds
from trimtune.choose.wording import LESS, MOST, ahead, best_of, by, count, percent, quality, ratio, said, seconds, units
from trimtune.records import Prefer
from trimtune.results import Row


def taken(picked: Row, second: Row | None, best: Row, inside: Sequence[Row], measured: Sequence[Row], compared: Compared,
          prefer: Prefer, binding: str | None, instead: Row | None, speeds: Speeds) -> str:
    """Two sentences: what is taken and how good it is; what limits it or what it gains."""
    clauses = []
    if binding and instead:
        clauses.append(f"without {binding} it would be {instead.name}: {_gain(instead, picked, compared, prefer, speeds)}")
    clauses += filter(None, (_trimming(picked, inside, compared, prefer, speeds), _cheapest(picked, inside, compared, prefer)))
    if not clauses and second is not None:
        clauses.append(f"the next one would be {second.name}")
    standing = _standing(picked, best, inside, measured, compared, prefer)
    first = f"Take {picked.name}: {_facts(picked, compared, prefer)}, {standing}."
    if not clauses:
        return first
    after = "; ".join(clauses[:2])
    return f"{first} {after[0].upper()}{after[1:]}."


def _facts(row: Row, compared: Compared, prefer: Prefer) -> str:
    found = row.readings.get(quality(compared))
    ends = [end for end in (found.low, found.high) if end is not None] if found else []
    low, high = (percent(end) if quality(compared) == "accuracy" else figure(end) for end in ends) if len(ends) == 2 else ("", "")
    interval = f" (95% interval {low} to {high})" if low else ""
    per = "ms per row" if quality(compared) == "accuracy" else "ms per answer"
    units_ = {LATENCY: per, THROUGHPUT: "rows/s", "size_mb": "MB"}
    rest = [f"{figure(value)} {units_[reading]}" for reading in (speed_of(prefer), "size_mb")
            if (value := row.value(reading)) is not None]
    return ", ".join([f"{said(compared, row.name)}{interval}", *rest])


def _standing(picked: Row, best: Row, inside: Sequence[Row], measured: Sequence[Row], compared: Compared, prefer: Prefer) -> str:
    if len(inside) == 1 and len(measured) > 1:
        return "the only one inside the limits"
    if prefer != "quality":
        beaten = compared.better(best.name, picked.name)
        behind = f"; {best.name} is {ahead(compared, best.name, picked.name)}" if beaten else ""
        first = min(least(row, READING[prefer]) for row in inside)
        level = ", within noise, and the best of those" if least(picked, READING[prefer]) > first else ""
        return f"the {MOST[READING[prefer]]} of the {count(inside)} inside the limits{level}{behind}"
    if picked is best:
        return f"{best_of(compared)} of the {count(measured)} measured"
    if not compared.better(best.name, picked.name):
        return f"which {units(compared)} can't tell from {best_of(compared)} of the {count(measured)} measured, {best.name}"
    return f"the best of the {count(inside)} inside the limits"


def _trimming(picked: Row, inside: Sequence[Row], compared: Compared, prefer: Prefer, speeds: Speeds) -> str:
    """What trimming gained, or that it gained nothing."""
    trimmed = [row for row in inside if not plain(row)]
    timed = speed_of(prefer)
    if plain(picked):
        said_ = {"quality": "as good and faster", "cost": ""}.get(prefer, LESS[READING[prefer]])
        many = f"none of the {len(trimmed)} trimmed candidates" if len(trimmed) > 1 else "the one trimmed candidate isn't"
        verb = " is " if len(trimmed) > 1 else " "
        what = "size" if prefer == "size" else "speed"
        return f"no gain here in {what} from trimming: {many}{verb}{said_}" if trimmed and said_ else ""
    sibling = next((row for row in inside if plain(row) and row.candidate.method == picked.candidate.method
                    and row.candidate.engine == picked.candidate.engine), None)
    if sibling is None or not compared.difference(sibling.name, picked.name).tied:
        return ""
    speed = ratio(sibling, picked, timed, LESS, speeds) if speeds.faster(picked, sibling, timed) else ""
    size = ratio(sibling, picked, "size_mb", LESS, speeds)
    if speed:
        return f"it ties in {quality(compared)} with the plain {sibling.name} and is {' and '.join(filter(None, (speed, size)))}"
    fast = "faster" if speeds.faster(sibling, picked, timed) else "as fast, as far as can be told"
    return (f"no gain here in speed from trimming: the plain {sibling.name} is as good and {fast}"
            + (f", though {picked.name} is {size}" if size else ""))


def _cheapest(picked: Row, inside: Sequence[Row], compared: Compared, prefer: Prefer) -> str:
    """A method that ties and costs less than half to tune is worth a word."""
    equals = [row for row in inside if compared.difference(row.name, picked.name).tied]
    cheap = min(equals, key=lambda row: (least(row, "fit_seconds"), row.name), default=picked)
    if prefer == "cost" or cheap.candidate.method == picked.candidate.method:
        return ""
    if 2 * least(cheap, "fit_seconds") > (picked.value("fit_seconds") or 0.0):
        return ""
    return (f"no gain here from dearer tuning: {cheap.name} ties in {quality(compared)} and took {seconds(cheap)} to tune "
            f"instead of {seconds(picked)}")


def _gain(instead: Row, picked: Row, compared: Compared, prefer: Prefer, speeds: Speeds) -> str:
    if prefer == "quality" and compared.better(instead.name, picked.name):
        return ahead(compared, instead.name, picked.name)
    gain = ratio(picked, instead, READING[prefer], LESS, speeds) or ratio(picked, instead, "size_mb", LESS, speeds)
    return (gain or "no better in any way that can be told") + (f", tied in {quality(compared)}" if prefer == "quality" else "")


def nothing_measured(rows: Sequence[Row]) -> str:
    causes = [row.cause for row in rows if row.cause]
    first = f" The first cause: {causes[0].rstrip('.')}." if causes else ""
    return f"Nothing can be taken, because none of the {count(rows)} could be measured.{first}"


def nothing_fits(measured: Sequence[Row], close: Row | None, bounds: Mapping[str, Sequence[Bound]]) -> str:
    """Which limits to relax, and by how much, for the candidate that is nearest to them."""
    first = f"None of the {count(measured)} measured is inside the limits."
    if close is None:
        lacking = next(bound for bound in bounds[measured[0].name] if bound.value is None)
        remedy = "or measure its parent too" if lacking.reading is not None else "or measure with more samples"
        return f"{first} The limit {reason(lacking)}: drop it, {remedy}."
    return f"{first} The nearest is {close.name}: to let it in, relax {' and '.join(map(_move, broken(bounds[close.name])))}."


def _move(bound: Bound) -> str:
    """`size_mb from <= 80 to <= 90 (by 12%)`, `accuracy from >= parent - 0.01 to >= parent - 0.0235`"""
    limit, moved = bound.limit, relaxed(bound.limit, bound.value or 0.0)
    much = "" if limit.parent else f" (by {by(excess(bound))})"
    return f"{limit.reading} from {limit.op} {limit.bound} to {moved.op} {moved.bound}{much}"


def plain(row: Row) -> bool:
    return not row.candidate.trims
