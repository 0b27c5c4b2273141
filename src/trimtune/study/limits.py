"""Limits such as `latency_p50_ms <= 8` or `accuracy >= parent - 0.01`: from a study's `require`, or from the command line.

A limit against the parent holds a reading of quality against that of the same method and engine without trims. It says how much
may be lost: `>= parent - 0.01` where higher is better, `<= parent + 0.1` or `<= parent + 2%` where lower is. With `surely` behind
it the 95% interval of the paired difference must be inside, and not only the difference itself.
"""

from __future__ import annotations

import math
import re
from typing import Any, cast

from trimtune import parts
from trimtune.errors import TrimtuneError, unknown
from trimtune.records import Better, DataSpec, Limit, Quantity
from trimtune.study.check import kind_of, mapping, quoted
from trimtune.study.document import Place
from trimtune.study.uses import tasks_of

LEDGER = {
    "fit_seconds": Quantity("s", "lower", "Fit time",
                            "Time of the fit of the tuned weights and of the trim after it; the search is not counted in."),
    "fit_peak_memory_mb": Quantity("MB", "lower", "Fit memory", "The most memory that one of these fits held.")}
"""readings that no measure takes: the run adds them from its ledger"""

_SIGN, _NUMBER = r"\s*(<=|>=|<|>|≤|≥)\s*", r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_LIMIT = re.compile(rf"{_SIGN}([-+]?{_NUMBER})\s*", re.ASCII)
_AGAINST_PARENT = re.compile(rf"{_SIGN}parent(?:\s*([-+−])\s*({_NUMBER})\s*(%?))?(?:\s+(surely))?\s*", re.ASCII)
PATTERN = f"^(?:{_LIMIT.pattern}|{_AGAINST_PARENT.pattern})$"
"""what a limit's text looks like, for the schema"""
_EXAMPLE = 'latency_p50_ms: "<= 8"'
_MAY_BE_NEGATIVE = ("forgetting",)
"""a difference; whatever else is read is a share, a count, a size or a time"""
_OF_QUALITY = ("fraction", "points", "1", "nats")
"""units of readings of quality: all others are costs"""


def known(task: str = "") -> dict[str, str]:
    """Every reading that a limit of a study with this task (of any, if none is given) may name → its unit."""
    return {name: quantity.unit for name, quantity in quantities(task).items()}


def parse(text: str, where: str = "--require") -> Limit:
    """One limit from one text, such as `size_mb<=25` or `accuracy>=parent-0.01`.

    Raises:
        TrimtuneError: no such reading, or no such comparison.
    """
    name = re.match(r"\s*([\w-]*)\s*(.*)", text, re.DOTALL)
    assert name is not None  # both groups may be empty
    return _limit(name[1], name[2], where)


def read(given: Any, place: Place, task: str = "", data: DataSpec | None = None) -> tuple[Limit, ...]:
    """The limits of a `require` mapping: reading → comparison, or a list of comparisons.

    Raises:
        TrimtuneError: no such reading or comparison, a limit twice, or on a reading that needs a key which `data` lacks.
    """
    found: list[Limit] = []
    for reading, value in mapping(given, place, f"require: {{{_EXAMPLE}}}").items():
        found += [_limit(reading, text, str(place / reading), task) for text in (value if isinstance(value, list) else [value])]
    needed = {name: key for measure in parts.names("measure")
              for name, key in getattr(parts.load("measure", measure), "NEEDS", {}).items()}
    for limit in found:
        key = needed.get(limit.reading)
        if data is not None and key and getattr(data, key) is None:
            raise TrimtuneError(f"{place / limit.reading}: the study gives no data.{key}, so there is no {limit.reading}.",
                                f"It is read where `data` has the key {key}.", f"Add `data: {{{key}: …}}`, or remove the limit.")
    twice = next((limit for index, limit in enumerate(found) if limit in found[:index]), None)
    if twice:
        raise TrimtuneError(f"{place / twice.reading}: the limit '{twice}' is given twice.", "Each limit is allowed once.",
                            "Remove one.")
    return tuple(found)


def quantities(task: str = "") -> dict[str, Quantity]:
    """Everything that a study with this task (with any, if none is given) may read."""
    measures = [parts.load("measure", name) for name in parts.names("measure")]
    taken = [module.READINGS for module in measures if not task or task in tasks_of(module)]
    return {name: quantity for readings in taken for name, quantity in readings.items()} | LEDGER


def _limit(reading: str, text: Any, where: str, task: str = "") -> Limit:
    name, readings = reading.replace("-", "_"), quantities(task)
    if name not in readings:
        raise unknown("reading", reading, readings, where, "A limit needs one of these.")
    unit, better, *_ = readings[name]
    held = _AGAINST_PARENT.fullmatch(text) if isinstance(text, str) else None
    if held:
        return _against_parent(name, better, held, where, readings)
    found = _LIMIT.fullmatch(text) if isinstance(text, str) else None
    if found is None or not math.isfinite(float(found[2])):
        what = quoted(text) if isinstance(text, str) else f"{quoted(text)} ({kind_of(text)})"
        also = f"; or '{_loss(unit, better)}', with or without 'surely' behind it" if unit in _OF_QUALITY else ""
        raise TrimtuneError(f"{where}: {what} is no limit.", f"Allowed: <=, >=, < or >, then one number without a unit{also}.",
                            f"Write for instance {_EXAMPLE}.")
    value = float(found[2])
    if unit == "fraction" and not 0 <= value <= 1:
        raise TrimtuneError(f"{where}: {quoted(text)} can't be met or can't be missed: {name} is a fraction.",
                            "Allowed: a number from 0 to 1.", "Write 0.9 for 90%.")
    if value < 0 and name not in _MAY_BE_NEGATIVE:
        raise TrimtuneError(f"{where}: {quoted(text)} says nothing: {name} is never below 0.", "Allowed: a number from 0 up.",
                            f"Write for instance {_EXAMPLE}.")
    return Limit(reading=name, op=cast("Any", _plain(found[1])), value=value)


def _against_parent(name: str, better: Better, found: re.Match[str], where: str,
                    readings: dict[str, Quantity]) -> Limit:
    unit, text, op = readings[name].unit, quoted(found[0].strip()), _plain(found[1])
    value = float(found[3] or 0.0) * (1 if found[2] == "+" else -1)
    example = f'Write for instance {name}: "{_loss(unit, better)}".'
    if unit not in _OF_QUALITY:
        qualities = ", ".join(sorted(each for each, quantity in readings.items() if quantity.unit in _OF_QUALITY))
        raise TrimtuneError(f"{where}: {name} can't be held against the parent: it is no reading of quality.",
                            f"Allowed: {qualities}.", f"Write a number instead, such as {_EXAMPLE}.")
    if op != (">=" if better == "higher" else "<=") or (value > 0 and better == "higher") or (value < 0 and better == "lower"):
        more, way = ("more", ">= parent' or '>= parent -") if better == "higher" else ("less", "<= parent' or '<= parent +")
        raise TrimtuneError(f"{where}: {text} doesn't say how much may be lost. Of {name} {more} is better, and a candidate "
                            "without trims is its own parent.", f"Allowed: '{way} NUMBER'.", example)
    if not math.isfinite(value) or (unit == "fraction" and (found[4] or abs(value) >= 1)) or (unit == "nats" and found[4]):
        allowed = "a number below 1; 0.01 is one point of a hundred" if unit == "fraction" else "a number, without %"
        raise TrimtuneError(f"{where}: {text} is no loss of {name} that can be judged.", f"Allowed: {allowed}.", example)
    paired = sorted({str(parts.load("task", task).METRIC) for task in parts.names("task")})
    if found[5] and name not in paired:
        raise TrimtuneError(f"{where}: {text}: nothing is sure of {name}, since its differences have no interval.",
                            "`surely` asks that the 95% interval of the paired difference to the parent is inside the limit; "
                            f"allowed for {' and '.join(paired)}.", "Leave `surely` out.")
    return Limit(reading=name, op=cast("Any", op), value=value + 0.0, parent=True, percent=bool(found[4]), surely=bool(found[5]))


def _loss(unit: str, better: Better) -> str:
    """An example of a limit against the parent."""
    if better == "lower":
        return f"<= parent + {'2%' if unit == '1' else '0.02'}"
    return f">= parent - {'0.01' if unit == 'fraction' else '1'}"


def _plain(sign: str) -> str:
    return {"≤": "<=", "≥": ">="}.get(sign, sign)
