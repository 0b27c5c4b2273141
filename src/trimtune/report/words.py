"""Numbers and names as people read them: units, rounding, durations, limits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from functools import cache

from trimtune.records import Limit, Quantity, Reading
from trimtune.results import Baseline, DataFacts, Result, Row
from trimtune.study.limits import quantities

_SIGNS = {"<=": "≤", ">=": "≥", "<": "<", ">": ">"}


def title(reading: str) -> str:
    """`latency_p50_ms` → `Latency p50`; a reading that is not known here gets its own name without underscores."""
    found = _known().get(reading)
    return found.title if found else reading.replace("_", " ").capitalize()


@cache
def _known() -> dict[str, Quantity]:
    """Read once: a report names thousands of readings."""
    return quantities()


def unit_of(result: Result, reading: str) -> str:
    """The unit that the result's rows give this reading, or its measure does."""
    given = [row.readings[reading].unit for row in result.rows if reading in row.readings]
    return _unit(given[0] if given else _known()[reading].unit if reading in _known() else "")


def _unit(unit: str) -> str:
    """As people read it: a count of nothing has none."""
    return {"fraction": "share", "1": ""}.get(unit, unit)


def percent_scale(unit: str) -> float:
    """What to multiply a reading by to draw it: 100 for shares (drawn in percent), 1 for everything else."""
    return 100.0 if unit == "share" else 1.0


def number(value: float, digits: int = 3) -> str:
    """About `digits` significant digits, thousands separated, never an exponent for ordinary sizes."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.1e}" if decimals > 6 else f"{value:,.{max(0, decimals)}f}"


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}%" if math.isfinite(share) else "–"


def duration(seconds: float) -> str:
    """`0.42 s`, `12.3 s`, `5 min 12 s`, `1 h 05 min`."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.95 else f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate(learning_rate: float) -> str:
    """A learning rate as people write it: `1e-3`, `3.2e-4`."""
    mantissa, exponent = f"{learning_rate:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def show(value: float | None, unit: str) -> str:
    """A value with its unit, or a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    if unit == "share":
        return percent(value)
    if unit == "%":
        return f"{value:.1f}%"
    if unit == "s":
        return duration(value)
    if unit == "nats":  # a difference, whose meaning says of what
        return f"{value:+.3f}"
    if unit == "tokens/s":  # its readings say of what
        return f"{number(value)}/s"
    if unit == "MB" and abs(value) >= 10_000:
        return f"{number(value / 1000)} GB"
    return f"{number(value)} {unit}".strip()


def interval(reading: Reading) -> str:
    """`88.2–93.4%`, `7.1–7.9 ms`, or nothing when the reading has no interval."""
    if reading.low is None or reading.high is None:
        return ""
    unit = _unit(reading.unit)
    low, high = show(reading.low, unit), show(reading.high, unit)
    tail = "%" if unit in ("share", "%") else "/s" if unit == "tokens/s" else f" {unit}"
    return f"{low.removesuffix(tail)}–{high}" if high.endswith(tail) else f"{low} – {high}"


def value(reading: Reading) -> str:
    return show(reading.value, _unit(reading.unit))


def worst_class(row: Row | Baseline) -> str:
    """`refund, 31 of 40`: the label that is got wrong most often, and how many of its rows were right; nothing if unknown."""
    reading = row.readings.get("worst_class_accuracy")
    if reading is None or reading.value is None:
        return ""
    return f"{reading.note}, {round(reading.value * reading.n)} of {reading.n}"


def limit(result: Result, given: Limit) -> str:
    """`Latency p50 ≤ 8 ms`"""
    return f"{title(given.reading)} {bound(result, given)}"


def bound(result: Result, given: Limit) -> str:
    """`≤ 8 ms`, `≥ its parent's − 1 point`"""
    if given.parent:
        margin = _margin(given, unit_of(result, given.reading))
        return f"{_SIGNS[given.op]} its parent's{margin}{', surely' if given.surely else ''}"
    unit = unit_of(result, given.reading)
    if unit in ("share", "%"):
        text = f"{given.value * percent_scale(unit):g}%"
    else:
        text = duration(given.value) if unit == "s" else f"{given.value:,g} {unit}".strip()
    return f"{_SIGNS[given.op]} {text}"


def _margin(given: Limit, unit: str) -> str:
    """` − 1 point`, ` + 2%`, or nothing."""
    much = abs(given.value) * percent_scale(unit)
    named = "%" if given.percent else f" point{'' if much == 1 else 's'}" if unit == "share" else f" {unit}" if unit else ""
    return f" {'−' if given.value < 0 else '+'} {much:g}{named}" if given.value else ""


def binding(result: Result) -> str:
    """The limits that bind, in words where they are the study's."""
    known = {str(each): limit(result, each) for each in result.study.require}
    return " and ".join(known.get(part, part) for part in (result.choice.binding_limit or "").split(" and "))


def moment(given: str) -> str:
    """`2026-02-03T10:11:12.345+00:00` → `2026-02-03 10:11:12 UTC`; what is no ISO time stays as it is."""
    try:
        when = datetime.fromisoformat(given)
    except ValueError:
        return given
    zone = when.strftime("%z")
    return f"{when:%Y-%m-%d %H:%M:%S}" + ("" if not zone else " UTC" if zone == "+0000" else f" {zone}")


def columns(facts: DataFacts) -> str:
    """`text 'body', label 'kind', 12 labels`; `pairs: prompt 'mr', completion 'ref'`."""
    if facts.labels:
        return f"text '{facts.text}', label '{facts.label}', {count(len(facts.labels), 'label')}"
    pairs = f"prompt '{facts.text}', completion '{facts.label}'"
    return f"{facts.kind}: {pairs}" if facts.kind == "pairs" else f"{facts.kind}: '{facts.text}'"


def count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(words: Iterable[str]) -> str:
    """`a, b and c`"""
    *most, last = list(words) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def spread(numbers: Iterable[int]) -> str:
    """`400`, or `380–400` where they differ."""
    found = sorted(set(numbers))
    return "" if not found else f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,}–{found[-1]:,}"
