"""What the budget did for each method, in words and figures: trials, seeds, seconds, memory."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from trimtune import parts
from trimtune.report import words
from trimtune.results import Result, Search


@dataclass(frozen=True)
class Method:
    """One method's search as the page tells it. `dots` places each seed's score, in percent of the cell."""

    name: str
    sentence: str
    notes: tuple[str, ...]
    cause: str
    seeds: str
    each: str
    scored_on: str
    dots: tuple[float, ...]
    seconds: str
    seconds_bar: float
    memory: str
    memory_bar: float


def methods(result: Result) -> list[Method]:
    """One entry per method, in the study's order."""
    slowest = max((search.seconds for search in result.searches), default=0) or 1
    largest = max((search.peak_memory_mb for search in result.searches), default=0) or 1
    task = parts.load("task", result.study.task)
    unit = words.unit_of(result, task.METRIC)
    scores = [task.metric(score) for search in result.searches for score in _scores(search)[1]]
    low, high = min(scores, default=0), max(scores, default=1)
    air = 0.08 * (high - low) or 0.01
    found = []
    for search in result.searches:
        split, scored = _scores(search)
        values = [task.metric(score) for score in scored]
        found.append(Method(
            name=search.method.label, notes=search.notes, cause=search.cause,
            sentence=f"{budget_sentence(result, search)} {epochs_sentence(result, search)}".strip(),
            seeds=mean_and_deviation(values, unit), each=", ".join(words.show(value, unit) for value in values),
            scored_on=f"{split}, n = {result.data.rows.get(split, 0):,} rows" if values else "",
            dots=tuple(round(100 * (value - low + air) / (high - low + 2 * air), 2) for value in values),
            seconds=words.duration(search.seconds), seconds_bar=round(100 * search.seconds / slowest, 2),
            memory=words.show(search.peak_memory_mb or None, "MB"),
            memory_bar=round(100 * search.peak_memory_mb / largest, 2)))
    return found


def _scores(search: Search) -> tuple[str, list[float]]:
    """The seeds' test scores, or their validation scores where the test rows were not read."""
    tested = [seed.test_score for seed in search.seeds if seed.test_score is not None]
    if len(tested) == len(search.seeds):
        return "test", tested
    return "validation", [seed.validation_score for seed in search.seeds]


def mean_and_deviation(values: list[float], unit: str = "share") -> str:
    """`91.3 ± 0.6% (mean ± sd of 3 seeds)`; one seed has no deviation, and says so."""
    if not values:
        return "–"
    if len(values) == 1:
        return f"{words.show(values[0], unit)} (1 seed, so no spread)"
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    shown = f"{100 * mean:.1f}" if unit == "share" else words.show(mean, unit)
    return f"{shown} ± {words.show(deviation, unit)} (mean ± sd of {len(values)} seeds)"


def budget_sentence(result: Result, search: Search) -> str:
    """`4 of 6 trials (1 stopped early), cap of 1 minute reached; best learning rate 1e-3; 3 of 3 seeds.`"""
    pruned, failed = sum(trial.pruned for trial in search.trials), sum(bool(trial.cause) for trial in search.trials)
    aside = [f"{pruned} stopped early"] * bool(pruned) + [f"{failed} failed"] * bool(failed)
    text = f"{len(search.trials)} of {words.count(search.trials_asked, 'trial')}" + (f" ({', '.join(aside)})" if aside else "")
    told = any("cap" in note or "minute" in note for note in search.notes)
    if len(search.trials) < search.trials_asked and not search.cause and not told:
        minutes = result.study.budget.minutes
        text += f", cap of {minutes:g} minute{'' if minutes == 1 else 's'} reached"
    if search.learning_rate is not None:
        text += f"; best learning rate {words.rate(search.learning_rate)}"
    return text + f"; {len(search.seeds)} of {words.count(search.seeds_asked, 'seed')}."


def epochs_sentence(result: Result, search: Search) -> str:
    """`Its fits ran 3 to 4 of 4 epochs (1 ended after 3 epochs without a better score); 99% of … after 6.20 s …`"""
    run = [seed.epochs for seed in search.seeds if seed.epochs]
    if not run:
        return ""
    asked, patience = result.study.fit.epochs, result.study.fit.patience
    span = f"{min(run)} to {max(run)}" if min(run) < max(run) else str(run[0])
    ended = sum(epochs < asked for epochs in run)
    why = f" ({ended} ended after {words.count(patience, 'epoch')} without a better score)" if ended else ""
    reached = words.duration(statistics.median(seed.seconds_to_99 for seed in search.seeds))
    fits = "Its fit ran" if len(run) == 1 else "Its fits ran"
    inside = f" in {search.precision}" if search.precision else ""
    return (f"{fits} {span} of {words.count(asked, 'epoch')}{inside}{why}; 99% of the best validation score after {reached} of "
            "fitting.")


def step_costs(result: Result) -> list[tuple[str, str, int, int]]:
    """(kind of step, seconds, how many, how many of them reused), in the order of the flow."""
    kinds: dict[str, list[float]] = {}
    for step in result.steps:
        entry = kinds.setdefault(step.step, [0.0, 0, 0])
        entry[0] += 0.0 if step.reused else step.seconds
        entry[1] += 1
        entry[2] += step.reused
    return [(kind, words.duration(seconds), int(n), int(reused)) for kind, (seconds, n, reused) in kinds.items()]
