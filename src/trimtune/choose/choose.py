"""From readings and limits to one candidate, with a reason for every other one. Needs only records: nothing is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtune.choose import baselines as trivial
from trimtune.choose import explain, rank, reasons, smaller
from trimtune.choose.bleu import texts
from trimtune.choose.bounds import Bound, bounds_of
from trimtune.choose.compare import Compared
from trimtune.choose.limits import broken, check, nearest
from trimtune.choose.paired import comparison
from trimtune.choose.rank import READING, best_scored, pick
from trimtune.choose.readings import least
from trimtune.choose.speeds import Speeds
from trimtune.choose.verdict import verdicts as judge
from trimtune.records import Limit, Prefer
from trimtune.results import Baseline, Choice, Rejection, Row, Turns

Bounds = Mapping[str, Sequence[Bound]]
"""measured candidate → each limit as it stands for it"""


def choose(rows: Sequence[Row], predictions: Mapping[str, Sequence[Any]], truth: Sequence[int], require: Sequence[Limit],
           prefer: Prefer, baselines: Sequence[Baseline] = (), metric: str = "accuracy",
           by_answer: Mapping[str, Sequence[Sequence[int]]] | None = None, by_round: Mapping[str, Turns] | None = None,
           machine: Mapping[str, Any] | None = None, labels: Sequence[str] = (), rivals: Sequence[Row] = ()) -> Choice:
    """The candidate to ship, the next one, the limit that decides, and why each of the others fell.

    Never outside the limits; with `prefer="quality"` never one that another candidate inside the limits beats significantly
    on the same test rows (see compare.py), and among equals the fastest (see speeds.py). Widening a limit never makes it worse.

    Args:
        rows: every candidate of the study, failed ones too.
        predictions: candidate → predicted label index of each test row, for every measured candidate.
        truth: label index of each test row.
        metric: `perplexity` for language models: predictions are (negative log-likelihood, learned tokens) of each prompt's rows.
        baselines: what needs no tuning. If the picked candidate does not beat one of them, the first sentence says so.
        by_answer: of language models, BLEU's statistics of each answer, for comparing with baselines that have no likelihood.
        by_round: candidate → its times in each round; without them speeds are compared by their own intervals.
        machine: what was measured on; its `flags` may be why a trim gains nothing.
        labels: names of a classifier's classes, for what is said of them.
        rivals: what was made of the next smaller model. Never picked; the first sentence says if one of them would do.

    Raises:
        TrimtuneError: a limit or the preference names no reading, or predictions and test rows don't match.
    """
    check(require, rows)
    measured = [row for row in rows if row.status == "measured"]
    if not measured:
        return Choice(picked=None, runner_up=None, binding_limit=None, sentence=explain.nothing_measured(rows),
                      rejected=tuple(Rejection(candidate=row.name, reason=reasons.failure(row)) for row in rows))
    rank.check(prefer, measured)
    scored: dict[str, Any] = {each.name: each.predictions for each in baselines if each.predictions and not each.cause}
    names = [row.name for row in (*measured, *rivals) if row.status == "measured"]
    compared = comparison({**predictions, **scored}, truth, [*names, *scored], metric)
    speeds, best = Speeds(by_round or {}), best_scored(measured, compared)
    verdicts = judge(rows, compared, speeds, [rule for rule in baselines if rule.name in scored], machine or {}, labels)
    tied = tuple(row.name for row in measured if not compared.better(best.name, row.name))
    bounds = {row.name: bounds_of(row, require, measured, compared.difference) for row in measured}
    inside = [row for row in measured if not broken(bounds[row.name])]
    picked = pick(inside, compared, prefer, speeds)
    answers_ = {**(by_answer or {}), **{baseline.name: baseline.by_answer for baseline in baselines}}
    standing = trivial.unbeaten(picked or best, baselines, (compared, texts(answers_, (picked or best).name)))
    unbeaten = tuple(baseline.name for baseline, _ in standing)
    beside = smaller.verdicts(rivals, picked or best, compared, speeds)
    first = f"{trivial.verdict(picked or best, standing)} {smaller.sentence(rivals, picked or best, compared, speeds)}".strip()
    if picked is None:
        close = nearest(measured, bounds)
        return Choice(picked=None, runner_up=None, tied=tied, unbeaten_baselines=unbeaten,
                      sentence=f"{first} {explain.nothing_fits(measured, close, bounds)}".strip(),
                      binding_limit=" and ".join(str(bound.limit) for bound in broken(bounds[close.name])) if close else None,
                      rejected=_rejected(rows, None, inside, compared, bounds, prefer, speeds), verdicts=verdicts, smaller=beside)
    second = pick([row for row in inside if row is not picked], compared, prefer, speeds)
    binding, instead = _binding(measured, picked, compared, bounds, prefer, speeds)
    sentence = explain.taken(picked, second, best, inside, measured, compared, prefer, binding, instead, speeds)
    return Choice(picked=picked.name, runner_up=second.name if second else None, binding_limit=binding, tied=tied,
                  unbeaten_baselines=unbeaten, sentence=f"{first} {sentence}".strip(),
                  rejected=_rejected(rows, picked, inside, compared, bounds, prefer, speeds), verdicts=verdicts, smaller=beside)


def _binding(measured: Sequence[Row], picked: Row, compared: Compared, bounds: Bounds, prefer: Prefer,
             speeds: Speeds) -> tuple[str | None, Row | None]:
    """The limit without which another candidate would be taken, and that candidate; of several the one that gains most.

    Where no limit does it alone, all of them together may.
    """
    freed: list[tuple[str, Row]] = []
    require = [bound.limit for bound in bounds[picked.name]]
    for left in [(limit,) for limit in require] + [tuple(require)] * (len(require) > 1):
        kept = [limit for limit in require if limit not in left]
        other = pick([row for row in measured if not any(bound.limit in kept for bound in broken(bounds[row.name]))], compared,
                     prefer, speeds)
        if other is not None and other is not picked and not (freed and len(left) > 1):
            freed.append((" and ".join(str(limit) for limit in left), other))
    if not freed:
        return None, None
    return min(freed, key=lambda pair: (-compared.score(pair[1].name) if prefer == "quality" else 0.0,
                                        least(pair[1], READING[prefer])))


def _rejected(rows: Sequence[Row], picked: Row | None, inside: Sequence[Row], compared: Compared, bounds: Bounds,
              prefer: Prefer, speeds: Speeds) -> tuple[Rejection, ...]:
    return tuple(Rejection(candidate=row.name, reason=reasons.rejection(row, picked, inside, compared, bounds.get(row.name, ()),
                                                                        prefer, speeds))
                 for row in rows if row is not picked)
