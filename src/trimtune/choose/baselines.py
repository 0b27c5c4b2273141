"""Whether tuning was worth it: the candidate against the trivial baselines, on the same test rows."""

from __future__ import annotations

from collections.abc import Sequence

from trimtune.choose.compare import Compared
from trimtune.choose.wording import percent
from trimtune.results import Baseline, Row


def unbeaten(row: Row, baselines: Sequence[Baseline], compared: Compared) -> list[Baseline]:
    """The baselines that the candidate is not significantly more accurate than, the most accurate first."""
    found = [baseline for baseline in baselines if not baseline.cause and not compared.better(row.name, baseline.name)]
    return sorted(found, key=lambda baseline: -compared.score(baseline.name))


def verdict(row: Row, found: Sequence[Baseline], compared: Compared) -> str:
    """One sentence about the best of the unbeaten baselines; empty where tuning beats them all."""
    if not found:
        return ""
    best, difference = found[0], compared.difference(found[0].name, row.name)
    theirs, own = percent(compared.score(best.name)), percent(compared.score(row.name))
    value, low, high = (f"{100 * end:+.1f}" for end in (difference.value, difference.low, difference.high))
    shares = f"{theirs}% against {own}% of {compared.n} test rows right ({value} points, 95% interval {low} to {high})"
    if difference.tied:
        return f"No gain from tuning is shown here: {best.title} ties with {row.name}, {shares}."
    return f"Tuning loses here: {best.title} beats {row.name}, {shares}."
