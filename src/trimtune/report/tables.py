"""The candidates as lines of a table: ordered, numbered, judged against the limits. The page and the Markdown show these."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtune import parts
from trimtune.choose.bounds import Bound, bounds_of
from trimtune.choose.compare import Difference
from trimtune.choose.limits import broken, unjudged
from trimtune.choose.paired import comparison
from trimtune.records import PREFERRED, Reading
from trimtune.report import words
from trimtune.results import Baseline, ChainSearch, ChainTry, Result, Row

QUALITY = ("accuracy", "macro_f1", "worst_class_accuracy")
COSTS = ("latency_p50_ms", "latency_p95_ms", "throughput_rows_per_s", "peak_memory_mb", "size_mb")
"""what a simulated trim says nothing real about, with a column each"""
_FURTHER_COSTS = ("tokenizing_ms", "weights_mb", "private_memory_mb", "load_ms", "load_again_ms", "energy_mj_per_row")
"""the same, without one"""
_SHOWN = {"accuracy": ("accuracy", "worst_class_accuracy", *COSTS, "fit_seconds"),
          "perplexity": ("perplexity", "bleu", "format_valid", "forgetting", "latency_p50_ms", "tokens_per_s", "peak_memory_mb",
                         "size_mb", "fit_seconds")}
_WHERE_ASKED = ("format_valid", "forgetting")
"""columns only where the study asks for the reading: by data.format, which it isn't taken without, or by a limit"""
_OF_BASELINES = {"accuracy": (*QUALITY, "fit_seconds", "size_mb"),
                 "perplexity": ("perplexity", "bleu", "rouge_l", "exact_match", "number_match", "format_valid", "fit_seconds",
                                "size_mb")}


@dataclass(frozen=True)
class Cell:
    """One reading as text; `sort` is its plain value, `detail` its interval, `over` the limit that it breaks."""

    reading: str
    label: str
    text: str
    detail: str = ""
    note: str = ""
    sort: float | None = None
    over: str = ""


@dataclass(frozen=True)
class Line:
    """One candidate. `number` stands beside its point in the plots; `span` places its interval bar, in percent of the cell."""

    number: int
    row: Row
    cells: tuple[Cell, ...]
    inside: bool
    unjudged: str
    """why it can't be said whether it is inside, if no limit is known to be broken: `not measured: too few samples`"""
    tied: bool
    role: str
    verdict: str = ""
    """`gain`, `trade`, `no gain here` or `unsafe`, against its parent"""
    whole: str = ""
    """the same of its whole chain, where that is another: `trade` though its last link was a gain"""
    span: tuple[float, float, float] | None = None

    @property
    def simulated(self) -> bool:
        return self.row.packed == "simulated"


def metric(result: Result) -> str:
    """The reading that quality is judged by."""
    return str(parts.load("task", result.study.task).METRIC)


def shown(result: Result) -> tuple[str, ...]:
    """The readings that the main table has columns for."""
    asked = {"format_valid"} & {name for row in result.rows for name in row.readings}
    asked |= {limit.reading for limit in result.study.require}
    usual = tuple(name for name in _SHOWN[metric(result)] if name not in _WHERE_ASKED or name in asked)
    return usual + tuple(name for name in sorted(asked) if name not in usual)


def bounds(result: Result, row: Row) -> tuple[Bound, ...]:
    """Each limit of the study as it stands for the row."""
    def paired(first: str, second: str) -> Difference:
        return comparison(result.predictions, result.truth, (first, second), metric(result)).difference(first, second)

    return bounds_of(row, result.study.require, result.rows, paired)


def inside_limits(result: Result, row: Row) -> bool:
    """Whether a measured row keeps every limit. A reading that was refused (None) keeps none."""
    return row.status == "measured" and not broken(bounds(result, row))


def why_unjudged(result: Result, row: Row) -> str:
    """Why nobody can say whether a measured row keeps the limits; nothing if it keeps them, or breaks one for certain."""
    found = bounds(result, row)
    return broken(found)[0].lacking.split(",")[0] if row.status == "measured" and unjudged(found) else ""


def lines(result: Result) -> list[Line]:
    """Every candidate: the picked one, the runner-up, those inside the limits, those outside, those without readings.

    Within each group the preferred reading decides, best first.
    """
    ordered = sorted(result.rows, key=lambda row: _order(result, row))
    domain = span_domain(result)
    return [Line(number=number, row=row, cells=cells(result, row, shown(result)), inside=inside_limits(result, row),
                 unjudged=why_unjudged(result, row), tied=row.name in result.choice.tied, role=_role(result, row),
                 verdict=verdict, whole=whole, span=_span(row, metric(result), domain))
            for number, row in enumerate(ordered, start=1) for verdict, whole in [kinds(result, row)]]


def _role(result: Result, row: Row) -> str:
    return {result.choice.picked: "picked", result.choice.runner_up: "runner-up"}.get(row.name, "")


def kinds(result: Result, row: Row) -> tuple[str, str]:
    """In a word or three what the row's last trim brought, and its whole chain, where that is another; nothing without trims."""
    told = [each for each in result.choice.verdicts if each.candidate == row.name and each.kind != "none"]
    found = [str(each.kind) for each in told] or [""]
    return found[0], found[-1] if found[-1] != found[0] else ""


def _order(result: Result, row: Row) -> tuple[int, float]:
    group = {"picked": 0, "runner-up": 1}.get(_role(result, row), 2)
    if row.status != "measured":
        return 4, 0.0
    if group == 2 and not inside_limits(result, row):
        group = 3
    reading = row.readings.get(PREFERRED.get(result.study.prefer, "")) or row.readings.get(metric(result))
    return group, _rank(reading)


def cells(result: Result, row: Row, names: tuple[str, ...], real: bool = True) -> tuple[Cell, ...]:
    """The named readings of a row. With `real`, a simulated candidate's speed and size are left out: they are not real."""
    over = {bound.limit.reading: f"limit {words.bound(result, bound.limit)}" for bound in broken(bounds(result, row))
            if bound.value is not None}
    hidden = (*COSTS, *_FURTHER_COSTS) if real and row.packed == "simulated" else ()
    return tuple(Cell(name, words.title(name), "simulated") if name in hidden and name in row.readings
                 else _cell(row, name, over.get(name, "")) for name in names)


def _cell(row: Row | Baseline, name: str, over: str = "") -> Cell:
    reading, label = row.readings.get(name), words.title(name)
    if reading is None:
        return Cell(name, label, "–")
    note = reading.note if reading.value is None else words.worst_class(row) if name == "worst_class_accuracy" else ""
    return Cell(name, label, words.value(reading), words.interval(reading), note, reading.value, over)


def tried(result: Result) -> list[tuple[ChainSearch, list[tuple[str, ...]]]]:
    """What `trim: auto` tried, as text: trims, quality on the validation rows, size, a time, what became of it."""
    task = parts.load("task", result.study.task)
    unit = words.unit_of(result, task.METRIC)

    def cells(one: ChainTry) -> tuple[str, ...]:
        became, quality = one.words or ("kept" if one.kept else ""), None if one.score is None else task.metric(one.score)
        return one.trims, words.show(quality, unit), words.show(one.size_mb, "MB"), words.show(one.ms, "ms"), became

    return [(ledger, [cells(one) for one in ledger.tries]) for ledger in result.chains]


def of_baselines(result: Result) -> list[str]:
    """The readings that the table of baselines has columns for: those that one of them has."""
    return [name for name in _OF_BASELINES[metric(result)]
            if any(name in baseline.readings for baseline in result.baselines)]


def baselines(result: Result) -> list[tuple[Baseline, tuple[Cell, ...], str]]:
    """Each baseline, the best first, its figures, and how it stands to the pick (to the best, if none is picked)."""
    found, quality = [], metric(result)
    for baseline in sorted(result.baselines, key=lambda each: _rank(each.readings.get(quality))):
        standing = "not beaten" if baseline.name in result.choice.unbeaten_baselines else "beaten" if baseline.readings else ""
        found.append((baseline, tuple(_cell(baseline, name) for name in of_baselines(result)), standing))
    return found


def _rank(reading: Reading | None) -> float:
    """For sorting, the best first; one without the reading comes last."""
    if reading is None or reading.value is None:
        return math.inf
    return -reading.value if reading.better == "higher" else reading.value


def baselines_words(result: Result) -> str:
    """What “not beaten” means."""
    whose = "the pick" if result.choice.picked else "the best candidate"
    if metric(result) == "accuracy":
        return f"“Not beaten”: {whose} is not significantly more accurate on these {len(result.truth):,} rows."
    return f"“Not beaten”: {whose} is not significantly better in perplexity; in BLEU, where the rule has no perplexity."


def span_domain(result: Result) -> tuple[float, float]:
    """The common scale of the quality's bars: all intervals fit, with a little air."""
    found = [reading for row in result.rows if (reading := row.readings.get(metric(result))) and reading.value is not None]
    low = min((_ends(reading)[0] for reading in found), default=0.0)
    high = max((_ends(reading)[1] for reading in found), default=1.0)
    air = 0.04 * (high - low) or 0.01
    return low - air, high + air


def _ends(reading: Reading) -> tuple[float, float]:
    value = reading.value or 0.0
    return (value if reading.low is None else reading.low), (value if reading.high is None else reading.high)


def _span(row: Row, metric_: str, domain: tuple[float, float]) -> tuple[float, float, float] | None:
    reading = row.readings.get(metric_)
    if reading is None or reading.value is None:
        return None
    low, high = _ends(reading)
    first, last = domain
    return tuple(round(100 * (value - first) / (last - first), 2) for value in (low, reading.value, high))  # type: ignore[return-value]


def samples(result: Result, reading: str) -> str:
    """`n = 400`, over all candidates that have the reading; nothing for what is counted once, such as bytes."""
    found = words.spread(row.readings[reading].n for row in result.rows if reading in row.readings)
    return f"n = {found}" if found not in ("", "1") else ""


def better(result: Result, reading: str) -> str:
    """`higher` or `lower`: which end of a column is looked for first."""
    return next((row.readings[reading].better for row in result.rows if reading in row.readings), "lower")


def further(result: Result) -> list[str]:
    """Readings that somebody has and the main table has no column for, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in result.rows for name, reading in row.readings.items()
                              if reading.value is not None and name not in shown(result)))


def failures(result: Result) -> list[tuple[str, list[str]]]:
    """(cause, what it stopped): candidates without readings, methods and steps that failed, those of one cause together."""
    found: dict[str, list[str]] = {}
    for row in (*result.rows, *result.rivals):
        if row.status != "measured":
            found.setdefault(row.cause or f"{row.status}, without a stated cause", []).append(row.name)
    for baseline in result.baselines:
        if baseline.cause:
            found.setdefault(baseline.cause, []).append(f"baseline {baseline.name}")
    for search in result.searches:
        if search.cause:
            found.setdefault(search.cause, []).append(f"method {search.method.label}")
        for trial in search.trials:
            if trial.cause:
                found.setdefault(trial.cause, []).append(f"{search.method.label}, trial at {words.rate(trial.learning_rate)}")
    for step in result.steps:
        if step.cause and step.cause not in found:
            found.setdefault(step.cause, []).append(f"step {step.step} {step.part}")
    return list(found.items())
