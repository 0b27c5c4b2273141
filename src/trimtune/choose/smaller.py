"""Whether the next smaller model off the shelf, tuned alike and untrimmed, would do: each of its candidates against the pick.

Quality by the paired test on the same test rows, speed by rounds, size by the bytes on disk, as trims are judged (verdict.py).
It is never picked: to ship it, a study names it as its `model`, and finds it tuned in the store.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimtune.choose.compare import Compared
from trimtune.choose.speeds import Speeds
from trimtune.choose.verdict import Kind, size_against, speed_against
from trimtune.choose.wording import beside, changed
from trimtune.results import Row, Verdict


def verdicts(rivals: Sequence[Row], row: Row, compared: Compared, speeds: Speeds) -> tuple[Verdict, ...]:
    """Of each of the smaller model's candidates, as it stands to `row`: gain, trade or no gain here; none, if it failed."""
    return tuple(Verdict(candidate=rival.name, against=row.name, kind=kind, words=words)
                 for rival in rivals for kind, words in [_judged(rival, row, compared, speeds)])


def _judged(rival: Row, row: Row, compared: Compared, speeds: Speeds) -> tuple[Kind, str]:
    if rival.status != "measured":
        return "none", f"it was not measured: {rival.cause or 'no cause was recorded'}"
    found = size_against(rival, row, speeds), speed_against(rival, row, speeds)
    quality = changed(compared, rival.name, row.name)
    if compared.better(rival.name, row.name):
        return "gain", ", ".join([quality, *(words for _, words in found)])
    gains, level, costs = ([words for much, words in found if much == which] for which in (1, 0, -1))
    words = ", ".join([*gains, *level, *(f"but {cost}" if gains else cost for cost in costs), quality])
    return "no gain here" if not gains else "trade" if compared.better(row.name, rival.name) else "gain", words


def sentence(rivals: Sequence[Row], row: Row, compared: Compared, speeds: Speeds) -> str:
    """One about the best of those that are no worse than `row`, nor shown to be slower; empty where there is none."""
    level = [rival for rival in rivals if rival.status == "measured" and not compared.better(row.name, rival.name)
             and not speeds.faster(row, rival)]
    if not level:
        return ""
    best = max(level, key=lambda rival: (compared.better(rival.name, row.name), compared.score(rival.name)))
    better = compared.better(best.name, row.name)
    costs = ", ".join(against(best, row, speeds)[1] for against in (speed_against, size_against))
    return (f"A smaller model off the shelf is {'better' if better else 'as good'}: {best.name} "
            f"{'beats' if better else 'ties with'} {row.name}, {beside(compared, best.name, row.name)}, {costs}.")
