"""What each candidate's trims brought: gain, trade, no gain here, or unsafe.

A candidate is compared with its parent (the same method and engine, the last trim left out), and with each shorter chain that was
measured; where none was, with the plainest that has some of its trims. Size by the bytes on disk, speed by rounds of one row
(speeds.py), whatever the study prefers, quality by the paired test on the same test rows (compare.py, likelihood.py): what isn't
shown counts as equal. Sizes within 1% are equal. Of classifiers it is said too how many rows both answer alike (agreement.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from trimtune.choose.agreement import agreement
from trimtune.choose.compare import Compared
from trimtune.choose.likelihood import Likelihoods
from trimtune.choose.rank import NOISE
from trimtune.choose.speeds import LATENCY, Speeds
from trimtune.choose.wording import LESS, MORE, changed, ratio, said, same_speed
from trimtune.results import Baseline, Row, Verdict

Kind = Literal["gain", "trade", "no gain here", "unsafe", "none"]
SIZE = "size_mb"
_FLOATS = ("fp32", "bf16", "fp16")
_INT8_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "dotprod", "i8mm"}
"""CPU flags (measure/_machine.py); any one means that 8-bit products are summed in one instruction"""


def verdicts(rows: Sequence[Row], compared: Compared, speeds: Speeds, rules: Sequence[Baseline],
             machine: Mapping[str, Any], labels: Sequence[str] = ()) -> tuple[Verdict, ...]:
    """Of each candidate with trims, in the order of `rows`: first against its parent, then against shorter chains.

    Args:
        rules: the baselines that `compared` knows; a candidate that isn't shown to be better than the worst of them is unsafe.
        machine: what was measured on; `flags` are its CPU's.
        labels: names of a classifier's classes.
    """
    # of language models an engine may keep weights in 8 bits and still sum floats: what the CPU lacks is then no cause
    flags = None if isinstance(compared, Likelihoods) else machine.get("flags")
    trivial = min(rules, key=lambda rule: compared.score(rule.name), default=None)
    found: list[Verdict] = []
    judged: list[tuple[str, tuple[Kind, str]]]
    for row in rows:
        if not row.candidate.trims or row.status == "unavailable":
            continue
        before, bad = _before(row, rows), _unsafe(row, trivial, compared)
        if not before:
            lacking = f"no {row.candidate.method.label}@{row.candidate.engine.label} with fewer trims was measured"
            judged = [("", bad if bad and row.status == "measured" else ("none", lacking))]
        elif bad:
            judged = [(before[0].name, bad)]
        else:
            judged = [(parent.name, _judged(row, parent, _quality(row, parent, compared, labels, "it" if at else "its parent"),
                                           compared, speeds, flags)) for at, parent in enumerate(before)]
        found += [Verdict(candidate=row.name, against=against, kind=kind, words=words) for against, (kind, words) in judged]
    return tuple(found)


def _before(row: Row, rows: Sequence[Row]) -> list[Row]:
    """The measured rows that lie before this one in its chain, the nearest first; else the plainest with some of its trims."""
    trims = row.candidate.trims
    alike = [other for other in rows if other.status == "measured" and other.packed != "simulated"
             and (other.candidate.method, other.candidate.engine) == (row.candidate.method, row.candidate.engine)]
    links = [other for length in range(len(trims) - 1, -1, -1) for other in alike if other.candidate.trims == trims[:length]]
    some = [other for other in alike if len(other.candidate.trims) < len(trims) and _within(other.candidate.trims, trims)]
    return links or sorted(some, key=lambda other: len(other.candidate.trims))[:1]


def _within(some: Sequence[Any], trims: Sequence[Any]) -> bool:
    """Whether the one chain is the other with links left out."""
    left = iter(trims)
    return all(trim in left for trim in some)


def _unsafe(row: Row, trivial: Baseline | None, compared: Compared) -> tuple[Kind, str] | None:
    if row.status == "failed":
        return "unsafe", f"it failed: {row.cause or 'no cause was recorded'}"
    if trivial is None or compared.better(row.name, trivial.name):
        return None
    return "unsafe", f"{said(compared, row.name)}, no better than {trivial.title} ({said(compared, trivial.name)})"


def _quality(row: Row, parent: Row, compared: Compared, labels: Sequence[str], whom: str) -> str:
    alike = agreement(compared, row.name, parent.name, labels, whom)
    return ", ".join(filter(None, (changed(compared, row.name, parent.name), alike)))


def _judged(row: Row, parent: Row, quality: str, compared: Compared, speeds: Speeds,
            flags: Sequence[str] | None) -> tuple[Kind, str]:
    if row.packed == "simulated":
        return "no gain here", f"only simulated, so no byte is saved and no kernel runs it; {quality}"
    size, speed = size_against(row, parent, speeds), speed_against(row, parent, speeds)
    gains, level, costs = ([words for much, words in (size, speed) if much == which] for which in (1, 0, -1))
    cause = "" if speed[0] > 0 else _cause(row, parent, flags)
    because = f"; {cause}" if cause else ""
    if not gains:
        return "no gain here", f"{size[1]}, {speed[1]}, {quality}{because}"
    words = ", ".join([*gains, *level, *(f"but {cost}" for cost in costs), quality])
    return "trade" if compared.better(parent.name, row.name) else "gain", words + because


def size_against(row: Row, parent: Row, speeds: Speeds) -> tuple[int, str]:
    """1 for smaller, -1 for larger, 0 for neither, in words."""
    own, other = row.value(SIZE), parent.value(SIZE)
    if own is None or other is None:
        return 0, "of unknown size"
    if other > own * (1 + NOISE[SIZE]):
        return 1, ratio(parent, row, SIZE, LESS, speeds)
    return (-1, ratio(row, parent, SIZE, MORE, speeds)) if own > other * (1 + NOISE[SIZE]) else (0, "as large")


def speed_against(row: Row, parent: Row, speeds: Speeds) -> tuple[int, str]:
    """1 for faster, -1 for slower, 0 for neither, in words."""
    if row.value(LATENCY) is None or parent.value(LATENCY) is None:
        return 0, "of unknown speed"
    if speeds.faster(row, parent):
        return 1, ratio(parent, row, LATENCY, LESS, speeds)
    if speeds.faster(parent, row):
        return -1, ratio(row, parent, LATENCY, MORE, speeds)
    return 0, same_speed(row, parent, speeds) or "as fast, as far as their intervals tell"


def _cause(row: Row, parent: Row, flags: Sequence[str] | None) -> str:
    """Why it isn't faster, if that is known; `flags` of the CPU are None where they say nothing."""
    own = [caveat for caveat in row.caveats if caveat not in parent.caveats]
    if own:
        return "; ".join(own)
    if row.numerics == parent.numerics:  # the engine timed both formats for each, and chose
        return f"it runs {row.precision}, its parent {parent.precision}" if row.precision != parent.precision else ""
    if row.numerics in ("", "plain"):
        return ""
    if row.precision in _FLOATS and row.numerics != row.precision:
        return "weights are unpacked to run"
    if row.numerics.startswith("int8") and flags is not None and not _INT8_PRODUCTS & {*flags}:
        return "this CPU has no int8 products"
    return f"the engine already runs {parent.precision}" if parent.precision in ("bf16", "fp16") else ""
