"""Figures in words, shared by the sentences and the reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtune.choose.bleu import Texts
from trimtune.choose.compare import Compared
from trimtune.choose.likelihood import Likelihoods
from trimtune.choose.limits import figure
from trimtune.choose.readings import least, overlap
from trimtune.choose.speeds import LATENCY, THROUGHPUT, TIMED, Ratio, Speeds
from trimtune.results import Row
from trimtune.tasks._perplexity import perplexity

MORE = {LATENCY: "slower", THROUGHPUT: "slower in bulk", "size_mb": "larger", "fit_seconds": "longer to tune"}
LESS = {LATENCY: "faster", THROUGHPUT: "faster in bulk", "size_mb": "smaller", "fit_seconds": "cheaper to tune"}
MOST = {LATENCY: "fastest", THROUGHPUT: "fastest in bulk", "size_mb": "smallest", "fit_seconds": "cheapest to tune"}
_UNTOLD = 2.0
"""times: an interval of a ratio whose ends lie further apart, as beside a busy process, tells nothing"""


def ratio(row: Row, other: Row, reading: str, words: dict[str, str], speeds: Speeds) -> str:
    """`1.8× slower (1.7–1.9)`, `3% larger`; empty where `row`'s reading isn't worse than `other`'s, or isn't shown to be.

    Of results without rounds, that it isn't shown to be is said.
    """
    high, low = least(row, reading), least(other, reading)
    if math.isinf(high) or math.isinf(low):
        return ""
    grows = (words is MORE) is not (reading == THROUGHPUT)  # the worse rate is the smaller figure
    if reading in TIMED and (found := speeds.ratio(row.name, other.name, reading)):
        return f"{_much(found.value, grows)} {words[reading]} ({_ends(found, grows)})" if found.low > 1 else ""
    if high <= low:
        return ""
    if low <= 0:
        return f"{words[reading]} ({figure(high)} instead of {figure(low)})"
    unsure = " (their intervals overlap)" if overlap(row.readings.get(reading), other.readings.get(reading)) else ""
    return f"{_much(high / low, grows)} {words[reading]}{unsure}"


def same_speed(row: Row, other: Row, speeds: Speeds) -> str:
    """`as fast (0.97–1.04×)`, where their rounds don't show which one is faster: how many times as long `row` takes."""
    found = speeds.ratio(row.name, other.name)
    if not found or not found.tied:
        return ""
    told = "as fast" if found.high <= _UNTOLD * found.low else "speed can't be told"
    return f"{told} ({found.low:.2f}–{found.high:.2f}×)"


def _much(times: float, grows: bool) -> str:
    return f"{times:.1f}×" if times >= 1.1 else f"{max(_percent_of(times, grows), 0.1):.2g}%"


def _ends(found: Ratio, grows: bool) -> str:
    """`1.7–1.9`, or in percent where the ratio is said so."""
    if found.value < 1.1:
        return "–".join(f"{_percent_of(end, grows):.2g}" for end in (found.low, found.high)) + "%"
    return "–".join(f"{end:.1f}" if end >= 1.1 else f"{end:.2f}" for end in (found.low, found.high))


def _percent_of(times: float, grows: bool) -> float:
    """By how many percent a figure grows or falls: 1.05 times as much is 5% more, the other 4.8% less."""
    return 100 * (times - 1 if grows else 1 - 1 / times)


def quality(compared: Compared) -> str:
    return "perplexity" if isinstance(compared, Likelihoods) else "accuracy"


def units(compared: Compared) -> str:
    return f"{compared.n} {'prompts' if isinstance(compared, Likelihoods) else 'rows'}"


def best_of(compared: Compared) -> str:
    return "the best" if isinstance(compared, Likelihoods) else "the most accurate"


def said(compared: Compared, name: str) -> str:
    """`87.1% of 480 test rows right`, `perplexity 3.21 on 480 test prompts`."""
    if isinstance(compared, Likelihoods):
        return f"perplexity {perplexity(-compared.score(name)):.3g} on {compared.n} test prompts"
    return f"{percent(compared.score(name))}% of {compared.n} test rows right"


def ahead(compared: Compared, first: str, second: str) -> str:
    """How much better the first one is: `2.0 points more accurate`, `4.2% lower in perplexity`."""
    value = compared.difference(first, second).value
    if isinstance(compared, Likelihoods):
        return f"{100 * (1 - perplexity(-value)):.2g}% lower in perplexity"
    return f"{100 * value:.1f} points more accurate"


def behind(compared: Compared, first: str, second: str) -> str:
    """How much worse the first one is: `2.0 points less accurate`, `4.4% higher in perplexity`."""
    value = compared.difference(second, first).value
    if isinstance(compared, Likelihoods):
        more = perplexity(value)
        return f"{100 * (more - 1):.2g}% higher in perplexity" if more < 2 else f"higher in perplexity by a factor of {more:.3g}"
    return f"{100 * value:.1f} points less accurate"


def spanned(compared: Compared, first: str, second: str) -> str:
    """The 95% interval of how much worse the first one is."""
    found = compared.difference(second, first)
    low, high = found.low, found.high
    if isinstance(compared, Likelihoods):
        if perplexity(found.value) >= 2:
            return f"95% interval {perplexity(low):.3g} to {perplexity(high):.3g}"
        low, high = perplexity(low) - 1, perplexity(high) - 1
    return f"95% interval {100 * low:.1f} to {100 * high:.1f}{'%' if isinstance(compared, Likelihoods) else ''}"


def beside(compared: Compared, first: str, second: str) -> str:
    """Both scores, and how far the first one's is from the second one's: `BLEU 24.1 against 23.0 on 100 test prompts (…)`."""
    found, scores = compared.difference(first, second), (compared.score(first), compared.score(second))
    ends = (found.value, found.low, found.high)
    if isinstance(compared, Likelihoods):
        one, other = (f"{perplexity(-score):.3g}" for score in scores)
        value, high, low = (f"{100 * (perplexity(-end) - 1):+.3g}" for end in ends)
        return f"perplexity {one} against {other} on {compared.n} test prompts ({value}%, 95% interval {low} to {high})"
    if isinstance(compared, Texts):
        one, other = (f"{score:.1f}" for score in scores)
        value, low, high = (f"{end:+.1f}" for end in ends)
        return f"BLEU {one} against {other} on {compared.n} test prompts ({value} points, 95% interval {low} to {high})"
    one, other = map(percent, scores)
    value, low, high = (f"{100 * end:+.1f}" for end in ends)
    return f"{one}% against {other}% of {compared.n} test rows right ({value} points, 95% interval {low} to {high})"


def changed(compared: Compared, first: str, second: str) -> str:
    """What the first one's quality is beside the second one's: `accuracy tied (−0.2 points, −1.0 to 0.6)`, `accuracy −3.1
    points (−4.9 to −1.3)`, `perplexity +8.1% (7.3 to 8.9)`."""
    found = compared.difference(first, second)
    ends = (found.value, found.low, found.high)
    unit, digits = " points", 1
    if isinstance(compared, Likelihoods):
        ends = (perplexity(-found.value) - 1, perplexity(-found.high) - 1, perplexity(-found.low) - 1)
        unit, digits = "%", 2 if abs(ends[0]) < 0.01 else 1
    value, low, high = (f"{round(100 * end, digits) + 0.0:.{digits}f}".replace("-", "−") for end in ends)
    much, span = f"{'' if value[0] == '−' else '+'}{value}{unit}", f"{low} to {high}"
    return f"{quality(compared)} tied ({much}, {span})" if found.tied else f"{quality(compared)} {much} ({span})"


def percent(share: float | None) -> str:
    return f"{100 * (share or 0.0):.1f}"


def by(excess: float) -> str:
    return f"{100 * excess:.2g}%" if excess < 1 else f"{1 + excess:.1f}×"


def count(rows: Sequence[Row]) -> str:
    return f"{len(rows)} candidate{'s' if len(rows) != 1 else ''}"


def seconds(row: Row) -> str:
    value = row.value("fit_seconds")
    return "an unknown time" if value is None else f"{figure(value)} s"
