"""The fair search: each method over its own range of learning rates, with the same number of trials and the same minutes.

Optuna proposes (three points spread over the range first, then a Gaussian process over log learning rate); validation
accuracy decides; test rows are never read here. The first three run to their end; a later trial is stopped after an epoch
in which it scores clearly (two standard errors) below the median of the earlier ones at that epoch: the rule of Optuna's
MedianPruner, taken into the step's key so that a resumed search equals an uninterrupted one. If the best trial lies at an
edge of the range, two more run beyond that edge, once. The best trial is the best setting's fit with the first seed; the
other seeds follow.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.records import Artifact, Study, Use
from trimtune.results import Search, SeedFit, Trial
from trimtune.store import Store
from trimtune.tune import features, fitting
from trimtune.tune.attention import working_attention
from trimtune.tune.cost import features_of, features_seconds
from trimtune.tune.precision import working_precision

FitAt = Callable[[float, int, tuple[float, ...]], Artifact]
"""learning rate, seed, thresholds → tuned artifact"""

BEYOND = 2
"""trials beyond an edge of the range, if the best one lies there"""
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
        fit_at = fitter(method, study, base, rows, store)
    except StepFailed as failure:
        return ledger.model_copy(update={"cause": failure.cause}), None
    trials, kept, notes = _trials(method, study, rows.facts["rows"]["validation"], fit_at,
                                  lambda made: features_seconds(made, store))
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
            fits.append(fit_at(rate, seed, ()))
        except StepFailed as failure:
            notes.append(f"{method.label}: seed {seed} failed ({failure.cause})")
    found = {"seeds": tuple(map(seed_fit, fits)), "learning_rate": rate, "notes": tuple(notes),
             "seconds": spent + sum(fit.seconds for fit in fits[1:]) + features_seconds(fits[0], store),
             "precision": fits[0].facts["precision"],
             "peak_memory_mb": max(fit.peak_memory_mb for fit in [*kept, *fits, *features_of(fits[0], store)])}
    return ledger.model_copy(update=found), max(fits, key=_score)


def _trials(method: Use, study: Study, validation_rows: int, fit_at: FitAt,
            beside: Callable[[Artifact], float] = lambda made: 0.0) -> tuple[list[Trial], list[Artifact], list[str]]:
    """The trials that the budget allows, the artifacts of those that ran to their end, and what there is to say about them.

    Args:
        beside: seconds of the step that a fit's features came from, which all trials share.
    """
    optuna_study, space = _optuna(method, study.seed, study.budget.trials)
    trials: list[Trial] = []
    kept: list[Artifact] = []

    def room() -> bool:
        took = [trial.seconds for trial in trials]
        shared = beside(kept[0]) if kept else 0.0
        return not trials or shared + sum(took) + max(took) <= study.budget.minutes * 60

    def run(rate: float) -> Trial:
        started = time.perf_counter()
        try:
            artifact = fit_at(rate, study.seed, _thresholds(trials, validation_rows))
        except StepFailed as failure:
            trials.append(Trial(learning_rate=rate, score=None, cause=failure.cause, seconds=time.perf_counter() - started))
            return trials[-1]
        facts = artifact.facts
        trials.append(Trial(learning_rate=rate, score=facts["validation_accuracy"], curve=tuple(facts["curve"]),
                            pruned=facts["pruned"], seconds=artifact.seconds))
        if not facts["pruned"]:
            kept.append(artifact)
        return trials[-1]

    while len(trials) < study.budget.trials:
        if not room():
            note = f"the cap of {study.budget.minutes:g} minutes leaves no room for another"
            return trials, kept, [f"{method.label}: {len(trials)} of {study.budget.trials} trials; {note}"]
        asked = optuna_study.ask(space)
        if _rounded(asked.params["learning_rate"]) in [trial.learning_rate for trial in trials]:  # would teach nothing
            optuna_study.tell(asked, state=_fail())
            optuna_study.enqueue_trial({"learning_rate": _beside(method, trials)})
            asked = optuna_study.ask(space)
        tried = run(_rounded(asked.params["learning_rate"]))
        optuna_study.tell(asked, tried.score, state=None if tried.score is not None else _fail())
    side, beyond = _beyond(method, trials)
    ran = [run(rate).learning_rate for rate in beyond if room()]
    best = _best(trials)
    if not ran:
        return trials, kept, [f"{method.label}: {note}" for note in [_outermost(method, trials, side)] if note]
    note = (f"{method.label}: the best trial lay at the {side} edge of the range, so it was widened once and {len(ran)} more "
            f"ran beyond it; the best is {'there' if best in ran else 'inside still'}: {best:g}")
    return trials, kept, [note]


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


def _outermost(method: Use, trials: list[Trial], side: str) -> str:
    """What there is to say of a best trial that lies at the end of what was tried, where nothing was tried beyond it."""
    best, tried = _best(trials), [trial.learning_rate for trial in trials]
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
    """The learning rate of the best trial that ran to its end."""
    whole = [trial for trial in trials if trial.score is not None and not trial.pruned]
    return max(whole, key=lambda trial: trial.score or 0.0).learning_rate if whole else None


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


def fitter(method: Use, study: Study, base: Artifact, rows: Artifact, store: Store, processes: int = 1) -> FitAt:
    """The function that fits one trial, with all but its learning rate, seed and thresholds filled in.

    `processes` is how many torchrun started; sums in another order give other last digits, so it is in the key.
    """
    chosen = working_precision(study, store)
    shared: dict[str, Any] = dict(task=study.task, batch_size=study.fit.batch_size, max_length=study.fit.max_length,
                                  precision_=chosen)
    code = parts.source_hash("method", method.name) + parts.source_hash("task", study.task)
    parents: tuple[Artifact, ...] = (base, rows)
    stored: dict[str, Any] = {}
    attention_ = working_attention(study, chosen, base, rows, store)
    made = features.kept(method, study.task, shared, base, rows, store, code)
    if made:
        parents, stored = (*parents, made), {"features_": made.folder}

    def fit_at(rate: float, seed: int, thresholds: tuple[float, ...]) -> Artifact:
        config = {**shared, "attention_": attention_, "model_name": study.model, "method": method.name,
                  "config": method.config, "learning_rate": rate, "epochs": study.fit.epochs, "stop_below": list(thresholds),
                  "class_weights": study.fit.class_weights, "patience": study.fit.patience}
        if processes > 1:
            config["processes"] = processes
        arguments = {**config, **stored, "base": base.folder, "rows": rows.folder, "seed": seed}
        return store.step("tune", method.name, fitting.fit, arguments, config=config, parents=parents, seed=seed, code=code)

    return fit_at


def seed_fit(artifact: Artifact) -> SeedFit:
    facts = artifact.facts
    return SeedFit(seed=artifact.seed, validation_accuracy=_score(artifact), seconds=artifact.seconds, artifact=artifact.key,
                   epochs=facts["epochs_run"], seconds_to_99=facts["seconds_to_99"])


def _thresholds(trials: list[Trial], rows: int) -> tuple[float, ...]:
    """Per epoch the median score of the earlier trials that got so far, less two standard errors of a score from `rows` rows.

    None before as many have run as are spread over the range.
    """
    curves = [trial.curve for trial in trials if trial.curve]
    if len(curves) < len(_FIRST):
        return ()
    longest = max(map(len, curves), default=0)
    medians = [statistics.median(curve[epoch] for curve in curves if len(curve) > epoch) for epoch in range(longest)]
    return tuple(median - 2 * math.sqrt(median * (1 - median) / rows) for median in medians)


def _score(artifact: Artifact) -> float:
    return float(artifact.facts["validation_accuracy"])


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
