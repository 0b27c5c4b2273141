"""The fair search: each method over its own range of learning rates, with the same number of trials and the same minutes.

Optuna proposes (three points spread over the range first, then a Gaussian process over log learning rate); validation
accuracy decides; test rows are never read here. Trials are halved in turn (successive halving; Jamieson and Talwalkar 2016,
arXiv 1502.07943, algorithm 1): all run one epoch of a whole fit's schedule and pause, the better half (two at least) goes on to
two epochs, the better half of those to four, the last ones to the end. A trial that goes on starts from where it paused, so it
ends as a fit that never did. If the best first epoch, or else the best trial, lies at an edge of the range, two more trials run
beyond that edge, once.
The best trial is the best setting's fit with the first seed; the other seeds follow.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.records import Artifact, Study, Use
from trimtune.results import Search, SeedFit, Trial
from trimtune.store import Store
from trimtune.tune.cost import features_of, features_seconds
from trimtune.tune.fits import Fits

FitAt = Callable[[float, int, int], Artifact]
"""learning rate, seed, epoch to pause after (0: none) → tuned artifact"""

BEYOND = 2
"""trials beyond an edge of the range, if the best one lies there"""
_GO_ON = 2
"""trials that run to their end, at least"""
_FIRST = (0.5, 5 / 6, 1 / 6)
"""where in the log range the first trials lie"""


def tune(method: Use, study: Study, base: Artifact, rows: Artifact, store: Store) -> tuple[Search, Artifact | None]:
    """Search one method's learning rate, fit the seeds, return the ledger and the tuned artifact that goes on.

    That artifact is the fit with the best validation accuracy among the seeds (the first of equals). It is None, and
    the ledger has a cause, when every trial failed.
    """
    ledger = Search(method=method, trials_asked=study.budget.trials, trials=(), seeds_asked=study.budget.seeds, seeds=(),
                    learning_rate=None, seconds=0.0)
    try:
        fit_at = Fits(method, study, base, rows, store)
    except StepFailed as failure:
        return ledger.model_copy(update={"cause": failure.cause}), None
    trials, kept, notes = _trials(method, study, fit_at, lambda made: features_seconds(made, store))
    for trial in trials:
        if trial.pruned:
            fit_at.forget(trial.learning_rate, study.seed)
    for note in notes:
        store.watch({"kind": "warning" if len(trials) < study.budget.trials else "note", "text": note})
    if study.fit.class_weights != "none":
        notes.append(f"{method.label}: {study.fit.class_weights} class weights in the loss of every fit")
    spent = sum(trial.seconds for trial in trials)
    ledger = ledger.model_copy(update={"trials": tuple(trials), "seconds": spent, "notes": tuple(notes),
                                       "trials_asked": max(study.budget.trials, len(trials))})
    if not kept:
        cause = next((trial.cause for trial in trials if trial.cause), "no trial ran to its end")
        return ledger.model_copy(update={"cause": cause}), None
    fits = [max(kept, key=_score)]
    rate = fits[0].facts["learning_rate"]
    for seed in range(study.seed + 1, study.seed + study.budget.seeds):
        try:
            fits.append(fit_at(rate, seed))
        except StepFailed as failure:
            notes.append(f"{method.label}: seed {seed} failed ({failure.cause})")
    found = {"seeds": tuple(map(seed_fit, fits)), "learning_rate": rate, "notes": tuple(notes),
             "seconds": spent + sum(fit.seconds for fit in fits[1:]) + features_seconds(fits[0], store),
             "precision": fits[0].facts["precision"],
             "peak_memory_mb": max(fit.peak_memory_mb for fit in [*kept, *fits, *features_of(fits[0], store)])}
    return ledger.model_copy(update=found), max(fits, key=_score)


def rungs(trials: int, epochs: int) -> list[tuple[int, int]]:
    """Until which epoch how many trials run, in order: (1, 6), (3, 3) for 6 trials of 3 epochs."""
    found, left, until = [], trials, 1
    while left > _GO_ON and 2 * until <= epochs:
        found.append((until, left))
        left, until = max(_GO_ON, math.ceil(left / 2)), until * 2
    return [*found, (epochs, left)]


def at_most(trials: int, epochs: int) -> tuple[int, int]:
    """How many processes, and how many epochs in them, a search takes whose range is widened."""
    (first, count), *later = steps = rungs(trials, epochs)
    going_on = sum(count * (until - since) for (since, _), (until, count) in itertools.pairwise(steps))
    return count + BEYOND + sum(count for _, count in later), count * first + going_on + BEYOND * epochs


class _Course:
    """One method's trials, by learning rate, in the order in which they were proposed.

    Args:
        beside: seconds of the step that a fit's features came from, which all trials share.
    """

    def __init__(self, study: Study, fit_at: FitAt, beside: Callable[[Artifact], float]) -> None:
        self.study, self.fit_at, self.beside = study, fit_at, beside
        self.trials: dict[float, Trial] = {}
        self.made: dict[float, Artifact] = {}
        self.rungs = rungs(study.budget.trials, study.fit.epochs)
        self.first = self.rungs[0][0]

    def room(self) -> bool:
        """Whether the minutes allow one more trial, with what those that go on will take."""
        took = [trial.seconds for trial in self.trials.values()]
        shared = self.beside(next(iter(self.made.values()))) if self.made else 0.0
        epochs = sum(count * (until - since) for (since, _), (until, count) in itertools.pairwise(self.rungs))
        return not took or shared + sum(took) + max(took) * (1 + epochs / self.first) <= self.study.budget.minutes * 60

    def run(self, rate: float, until: int) -> Trial:
        """A trial until the end of that epoch, from where it paused if it did."""
        started, epochs = time.perf_counter(), self.study.fit.epochs
        try:
            artifact = self.made[rate] = self.fit_at(rate, self.study.seed, until if until < epochs else 0)
        except StepFailed as failure:
            spent = self.trials[rate].seconds if rate in self.trials else 0.0
            found = Trial(learning_rate=rate, score=None, cause=failure.cause, seconds=spent + time.perf_counter() - started)
        else:
            found = Trial(learning_rate=rate, score=artifact.facts["validation_score"], curve=tuple(artifact.facts["curve"]),
                          pruned=until < epochs, seconds=artifact.seconds)
        self.trials[rate] = found
        return found

    def halve(self) -> None:
        """Let the best ones go on, to the end; where one fails on its way, the next best goes instead."""
        left = [trial for trial in self.trials.values() if not trial.cause]
        for until, count in self.rungs[1:]:
            ranked, left = sorted(left, key=_trial_score, reverse=True), []
            for trial in ranked:
                if len(left) < count:
                    left += [went for went in [self.run(trial.learning_rate, until)] if not went.cause]


def _trials(method: Use, study: Study, fit_at: FitAt,
            beside: Callable[[Artifact], float] = lambda made: 0.0) -> tuple[list[Trial], list[Artifact], list[str]]:
    """The trials that the budget allows, the artifacts of those that ran to their end, and what there is to say about them."""
    course = _Course(study, fit_at, beside)
    _propose(method, study, course)
    short = len(course.trials) < study.budget.trials
    side, beyond = _beyond(method, list(course.trials.values()))
    ran = [course.run(rate, course.first).learning_rate for rate in beyond if not short and course.room()]
    course.halve()
    if not ran:  # a rate that started slowly may be the best one in the end
        side, beyond = _beyond(method, list(course.trials.values()))
        ran = [course.run(rate, study.fit.epochs).learning_rate for rate in beyond if not short and course.room()]
    trials = list(course.trials.values())
    best = _best(trials)
    if short:
        note = (f"{len(trials)} of {study.budget.trials} trials; the cap of {study.budget.minutes:g} minutes leaves no room for "
                "another")
    elif ran and best:
        note = (f"the best trial lay at the {side} edge of the range, so it was widened once and {len(ran)} more ran beyond it; "
                f"the best is {'there' if best in ran else 'inside still'}: {best:g}")
    else:
        note = _outermost(method, trials)
    whole = [course.made[trial.learning_rate] for trial in trials if not trial.cause and not trial.pruned]
    return trials, whole, [f"{method.label}: {note}"] if note else []


def _propose(method: Use, study: Study, course: _Course) -> None:
    """Run as many trials as are asked for and fit into the minutes, up to where they first pause."""
    optuna_study, space = _optuna(method, study.seed, study.budget.trials)
    while len(course.trials) < study.budget.trials and course.room():
        asked = optuna_study.ask(space)
        if _rounded(asked.params["learning_rate"]) in course.trials:  # would teach nothing
            optuna_study.tell(asked, state=_fail())
            optuna_study.enqueue_trial({"learning_rate": _beside(method, list(course.trials.values()))})
            asked = optuna_study.ask(space)
        tried = course.run(_rounded(asked.params["learning_rate"]), course.first)
        optuna_study.tell(asked, tried.score, state=None if tried.score is not None else _fail())


def _beyond(method: Use, trials: list[Trial]) -> tuple[str, list[float]]:
    """The edge at which the best trial lies (in the outer twentieth of the log range), if it does, and two rates beyond it."""
    low, high = parts.load("method", method.name).LEARNING_RATES
    best = _best(trials)
    if best is None:
        return "", []
    place = math.log(best / low) / math.log(high / low)
    if place >= 0.95:
        return "upper", [_rounded(high * 2**step) for step in range(1, BEYOND + 1)]
    return ("lower", [_rounded(low / 2**step) for step in range(1, BEYOND + 1)]) if place <= 0.05 else ("", [])


def _outermost(method: Use, trials: list[Trial]) -> str:
    """What there is to say of a best trial that lies at the end of what was tried, where nothing was tried beyond it."""
    best, tried = _best(trials), [trial.learning_rate for trial in trials]
    side, _ = _beyond(method, trials)
    low, high = parts.load("method", method.name).LEARNING_RATES
    if side:
        return f"the best trial ({best:g}) lies at the {side} edge of the range, and no time was left to look beyond it"
    if best is None or len(tried) < 2 or best not in (min(tried), max(tried)):
        return ""
    which, end = ("highest", high) if best == max(tried) else ("lowest", low)
    return (f"the best rate ({best:g}) is the {which} of {len(tried)} tried; the range goes on to {end:g}, and more trials would "
            "look there")


def _beside(method: Use, trials: list[Trial]) -> float:
    """The middle, on a log scale, of the wider gap beside the best rate; beyond the outermost rates the range's ends count."""
    best = _best(trials) or trials[0].learning_rate
    known = sorted({*parts.load("method", method.name).LEARNING_RATES, *(trial.learning_rate for trial in trials)})
    at = known.index(best)
    gaps = [(high / low, math.sqrt(low * high)) for low, high in itertools.pairwise(known[max(0, at - 1):at + 2])]
    return max(gaps)[1]


def _best(trials: list[Trial]) -> float | None:
    """The learning rate of the best trial, of those that ran to their end if there are any yet."""
    scored = [trial for trial in trials if not trial.cause]
    whole = [trial for trial in scored if not trial.pruned] or scored
    return max(whole, key=_trial_score).learning_rate if whole else None


def _trial_score(trial: Trial) -> float:
    return -math.inf if trial.score is None else trial.score


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


def seed_fit(artifact: Artifact) -> SeedFit:
    facts = artifact.facts
    return SeedFit(seed=artifact.seed, validation_score=_score(artifact), seconds=artifact.seconds, artifact=artifact.key,
                   epochs=facts["epochs_run"], seconds_to_99=facts["seconds_to_99"])


def _score(artifact: Artifact) -> float:
    return float(artifact.facts["validation_score"])


def _optuna(method: Use, seed: int, trials: int) -> tuple[Any, dict[str, Any]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    low, high = parts.load("method", method.name).LEARNING_RATES
    sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=len(_FIRST), deterministic_objective=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for share in _FIRST[:trials]:
        study.enqueue_trial({"learning_rate": math.exp(math.log(low) + share * (math.log(high) - math.log(low)))})
    return study, {"learning_rate": optuna.distributions.FloatDistribution(low, high, log=True)}


def _fail() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL
