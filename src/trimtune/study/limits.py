"""Limits such as `latency_p50_ms <= 8`: from a study's `require`, or from the command line."""

from __future__ import annotations

import math
import re
from typing import Any, cast

from trimtune import parts
from trimtune.errors import TrimtuneError, unknown
from trimtune.records import DataSpec, Limit
from trimtune.study.check import kind_of, mapping, quoted
from trimtune.study.document import Place
from trimtune.study.uses import tasks_of

LEDGER = {"fit_seconds": "s", "fit_peak_memory_mb": "MB"}
"""readings that no measure takes: the run adds them from its ledger"""

_LIMIT = re.compile(r"\s*(<=|>=|<|>|≤|≥)\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*", re.ASCII)
_EXAMPLE = 'latency_p50_ms: "<= 8"'
_MAY_BE_NEGATIVE = ("forgetting",)
"""a difference; whatever else is read is a share, a count, a size or a time"""


def known(task: str = "") -> dict[str, str]:
    """Every reading that a limit of a study with this task (of any, if none is given) may name → its unit."""
    measures = [parts.load("measure", name) for name in parts.names("measure")]
    taken = [module.READINGS for module in measures if not task or task in tasks_of(module)]
    return {name: unit for readings in taken for name, (unit, _) in readings.items()} | LEDGER


def parse(text: str, where: str = "--require") -> Limit:
    """One limit from one text, such as `size_mb<=25`.

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


def _limit(reading: str, text: Any, where: str, task: str = "") -> Limit:
    name, units = reading.replace("-", "_"), known(task)
    if name not in units:
        raise unknown("reading", reading, units, where, "A limit needs one of these.")
    found = _LIMIT.fullmatch(text) if isinstance(text, str) else None
    if found is None or not math.isfinite(float(found[2])):
        what = quoted(text) if isinstance(text, str) else f"{quoted(text)} ({kind_of(text)})"
        raise TrimtuneError(f"{where}: {what} is no limit.", "Allowed: <=, >=, < or >, then one number without a unit.",
                            f"Write for instance {_EXAMPLE}.")
    value = float(found[2])
    if units[name] == "fraction" and not 0 <= value <= 1:
        raise TrimtuneError(f"{where}: {quoted(text)} can't be met or can't be missed: {name} is a fraction.",
                            "Allowed: a number from 0 to 1.", "Write 0.9 for 90%.")
    if value < 0 and name not in _MAY_BE_NEGATIVE:
        raise TrimtuneError(f"{where}: {quoted(text)} says nothing: {name} is never below 0.", "Allowed: a number from 0 up.",
                            f"Write for instance {_EXAMPLE}.")
    return Limit(reading=name, op=cast("Any", {"≤": "<=", "≥": ">="}.get(found[1], found[1])), value=value)
