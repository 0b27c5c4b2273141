"""Numbers and names as people read them: units, rounding, durations, limits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

from trimtune.records import Limit, Reading
from trimtune.results import Baseline, DataFacts, Result, Row

NAMES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "worst_class_accuracy": "Worst class",
    "calibration_error": "Calibration error",
    "latency_p50_ms": "Latency p50",
    "latency_p95_ms": "Latency p95",
    "tokenizing_ms": "Tokenizing",
    "throughput_rows_per_s": "Throughput",
    "perplexity": "Perplexity",
    "bleu": "BLEU",
    "rouge_l": "ROUGE-L",
    "exact_match": "Exact match",
    "number_match": "Number match",
    "ended": "Ended",
    "format_valid": "Format valid",
    "general_perplexity": "General perplexity",
    "forgetting": "Forgetting",
    "first_token_ms": "First token",
    "tokens_per_s": "Tokens per second",
    "tokens_per_s_8": "Tokens per second, 8 rows",
    "kv_cache_mb": "KV cache",
    "peak_memory_mb": "Peak memory",
    "private_memory_mb": "Private memory",
    "size_mb": "Size on disk",
    "weights_mb": "Weights on disk",
    "load_ms": "Load time",
    "load_again_ms": "Load time, again",
    "energy_mj_per_row": "Energy per row",
    "fit_seconds": "Fit time",
    "fit_peak_memory_mb": "Fit memory",
}
MEANINGS = {
    "accuracy": "Share of the test rows that were given the right label.",
    "macro_f1": "F1 score of each label, every label with the same weight; rare labels count as much as common ones.",
    "worst_class_accuracy": "Accuracy on the label that the model gets wrong most often.",
    "calibration_error": "How far the confidence in answers is from the share that is right; few rows read high by chance.",
    "latency_p50_ms": "Time for one row (of a language model: for an answer); half of the answers came at least this fast.",
    "latency_p95_ms": "Time for one row: 95 of 100 answers came at least this fast.",
    "tokenizing_ms": "The part of a row's time that makes tokens of its text; half of the rows took no longer.",
    "throughput_rows_per_s": "Rows answered per second when they come in batches.",
    "perplexity": "The number of equally likely tokens that the model hesitates between at each token of the test rows.",
    "bleu": "How many runs of one to four words the answers share with the references, 0 to 100.",
    "rouge_l": "Words that stand in the same order in an answer and in its best reference.",
    "exact_match": "Share of answers that are a reference, but for case, punctuation and spaces.",
    "number_match": "Share of answers whose last number is the reference's last one.",
    "format_valid": "Share of answers that have the format that the study asks for.",
    "general_perplexity": "Perplexity of general text that nothing was tuned on.",
    "forgetting": "How much more a token of general text surprises it than the untuned model, in nats; below 0: less.",
    "ended": "Share of answers that end by themselves before they are cut.",
    "first_token_ms": "Time from a prompt's tokens to the first token of its answer; half of them came at least this fast.",
    "tokens_per_s": "Tokens of one answer written per second, once the prompt is taken in.",
    "tokens_per_s_8": "Tokens written per second by eight answers together.",
    "kv_cache_mb": "Keys and values that the model keeps for eight answers.",
    "peak_memory_mb": "The most memory that loading the model and answering added to the process.",
    "private_memory_mb": "Memory that it has written and shares with no other process, after answering.",
    "size_mb": "Bytes on disk of what would be shipped.",
    "weights_mb": "Those of them that are weights; the others are the tokenizer and settings.",
    "load_ms": "From a Python process that has imported nothing to the first answer, the files in the system's cache.",
    "load_again_ms": "The same once more in that process, its libraries imported.",
    "energy_mj_per_row": "What the machine's counters of energy say while rows are answered, per row; idle is counted in.",
    "fit_seconds": "Time of the fit of the tuned weights and of the trim after it; the search is not counted in.",
    "fit_peak_memory_mb": "The most memory that one of these fits held.",
}
_SIGNS = {"<=": "≤", ">=": "≥", "<": "<", ">": ">"}
_SUFFIXES = {"_ms": "ms", "_mb": "MB", "_rows_per_s": "rows/s", "_seconds": "s", "accuracy": "share", "_f1": "share"}


def title(reading: str) -> str:
    """`latency_p50_ms` → `Latency p50`; a reading that is not known here gets its own name without underscores."""
    return NAMES.get(reading) or reading.replace("_", " ").capitalize()


def unit_of(result: Result, reading: str) -> str:
    """The unit that the result's rows give this reading, or the one that its name says."""
    for row in result.rows:
        if reading in row.readings:
            return _unit(reading, row.readings[reading].unit)
    return _unit(reading, "")


def _unit(reading: str, unit: str) -> str:
    if unit in ("share", "fraction"):
        return "share"
    if unit == "%" or unit in _SUFFIXES.values():
        return unit
    guessed = next((unit for suffix, unit in _SUFFIXES.items() if reading.endswith(suffix)), unit.removeprefix("1"))
    return guessed if unit in ("", "1", "ratio", "mb", "seconds") else unit


def percent_scale(unit: str) -> float:
    """What to multiply a reading by to draw it: 100 for shares (drawn in percent), 1 for everything else."""
    return 100.0 if unit == "share" else 1.0


def number(value: float, digits: int = 3) -> str:
    """About `digits` significant digits, thousands separated, never an exponent for ordinary sizes."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.1e}" if decimals > 6 else f"{value:,.{max(0, decimals)}f}"


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}%" if math.isfinite(share) else "–"


def duration(seconds: float) -> str:
    """`0.42 s`, `12.3 s`, `5 min 12 s`, `1 h 05 min`."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.95 else f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate(learning_rate: float) -> str:
    """A learning rate as people write it: `1e-3`, `3.2e-4`."""
    mantissa, exponent = f"{learning_rate:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def show(value: float | None, unit: str) -> str:
    """A value with its unit, or a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    if unit == "share":
        return percent(value)
    if unit == "%":
        return f"{value:.1f}%"
    if unit == "s":
        return duration(value)
    if unit == "nats":  # a difference, whose meaning says of what
        return f"{value:+.3f}"
    if unit == "tokens/s":  # its readings say of what
        return f"{number(value)}/s"
    if unit == "MB" and abs(value) >= 10_000:
        return f"{number(value / 1000)} GB"
    return f"{number(value)} {unit}".strip()


def interval(reading: Reading) -> str:
    """`88.2–93.4%`, `7.1–7.9 ms`, or nothing when the reading has no interval."""
    if reading.low is None or reading.high is None:
        return ""
    unit = _unit(reading.name, reading.unit)
    low, high = show(reading.low, unit), show(reading.high, unit)
    tail = "%" if unit in ("share", "%") else "/s" if unit == "tokens/s" else f" {unit}"
    return f"{low.removesuffix(tail)}–{high}" if high.endswith(tail) else f"{low} – {high}"


def value(reading: Reading) -> str:
    return show(reading.value, _unit(reading.name, reading.unit))


def worst_class(row: Row | Baseline) -> str:
    """`refund, 31 of 40`: the label that is got wrong most often, and how many of its rows were right; nothing if unknown."""
    reading = row.readings.get("worst_class_accuracy")
    if reading is None or reading.value is None:
        return ""
    return f"{reading.note}, {round(reading.value * reading.n)} of {reading.n}"


def limit(result: Result, given: Limit) -> str:
    """`Latency p50 ≤ 8 ms`"""
    return f"{title(given.reading)} {bound(result, given)}"


def bound(result: Result, given: Limit) -> str:
    """`≤ 8 ms`, `≥ its parent's − 1 point`"""
    if given.parent:
        margin = _margin(given, unit_of(result, given.reading))
        return f"{_SIGNS[given.op]} its parent's{margin}{', surely' if given.surely else ''}"
    unit = unit_of(result, given.reading)
    if unit in ("share", "%"):
        text = f"{given.value * percent_scale(unit):g}%"
    else:
        text = duration(given.value) if unit == "s" else f"{given.value:,g} {unit}".strip()
    return f"{_SIGNS[given.op]} {text}"


def _margin(given: Limit, unit: str) -> str:
    """` − 1 point`, ` + 2%`, or nothing."""
    much = abs(given.value) * percent_scale(unit)
    named = "%" if given.percent else f" point{'' if much == 1 else 's'}" if unit == "share" else f" {unit}" if unit else ""
    return f" {'−' if given.value < 0 else '+'} {much:g}{named}" if given.value else ""


def binding(result: Result) -> str:
    """The limits that bind, in words where they are the study's."""
    known = {str(each): limit(result, each) for each in result.study.require}
    return " and ".join(known.get(part, part) for part in (result.choice.binding_limit or "").split(" and "))


def moment(given: str) -> str:
    """`2026-02-03T10:11:12.345+00:00` → `2026-02-03 10:11:12 UTC`; what is no ISO time stays as it is."""
    try:
        when = datetime.fromisoformat(given)
    except ValueError:
        return given
    zone = when.strftime("%z")
    return f"{when:%Y-%m-%d %H:%M:%S}" + ("" if not zone else " UTC" if zone == "+0000" else f" {zone}")


def columns(facts: DataFacts) -> str:
    """`text 'body', label 'kind', 12 labels`; `pairs: prompt 'mr', completion 'ref'`."""
    if facts.labels:
        return f"text '{facts.text}', label '{facts.label}', {count(len(facts.labels), 'label')}"
    pairs = f"prompt '{facts.text}', completion '{facts.label}'"
    return f"{facts.kind}: {pairs}" if facts.kind == "pairs" else f"{facts.kind}: '{facts.text}'"


def count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(words: Iterable[str]) -> str:
    """`a, b and c`"""
    *most, last = list(words) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def spread(numbers: Iterable[int]) -> str:
    """`400`, or `380–400` where they differ."""
    found = sorted(set(numbers))
    return "" if not found else f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,}–{found[-1]:,}"
