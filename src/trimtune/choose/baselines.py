"""Whether tuning was worth it: the candidate against the trivial baselines, on the same test rows."""

from __future__ import annotations

from collections.abc import Sequence

from trimtune.choose.compare import Compared
from trimtune.choose.wording import beside
from trimtune.results import Baseline, Row

Standing = tuple[Baseline, Compared]
"""a baseline, and by what it was compared"""


def unbeaten(row: Row, baselines: Sequence[Baseline], compared: Sequence[Compared]) -> list[Standing]:
    """The baselines that the candidate is not significantly better than, the best first.

    Args:
        compared: the first of these that knows both decides; baselines that were compared by an earlier one come first.
    """
    found = []
    for baseline in baselines:
        own = next((place for place, one in enumerate(compared) if {row.name, baseline.name} <= {*one.names}), None)
        if own is not None and not baseline.cause and not compared[own].better(row.name, baseline.name):
            found.append((own, -compared[own].score(baseline.name), baseline))
    return [(baseline, compared[own]) for own, _, baseline in sorted(found, key=lambda one: one[:2])]


def verdict(row: Row, found: Sequence[Standing]) -> str:
    """One sentence about the best of the unbeaten baselines; empty where tuning beats them all."""
    if not found:
        return ""
    best, compared = found[0]
    figures = beside(compared, best.name, row.name)
    if compared.difference(best.name, row.name).tied:
        return f"No gain from tuning is shown here: {best.title} ties with {row.name}, {figures}."
    return f"Tuning loses here: {best.title} beats {row.name}, {figures}."
