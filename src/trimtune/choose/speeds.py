"""Paired comparison of candidates' speed, round by round: they took turns, so what slowed the machine in a round slowed all.

    ratio = median over rounds r of  (median_i t_A[r, i] / median_i t_B[r, i])      t in ms; i: rows of r that both answered

t is the time of one row answered alone (of a language model, of an answer), or that of a row when many are answered together,
which has one figure per round.

The 95% interval is a bootstrap (Efron & Tibshirani 1993, chapter 13): rounds are drawn with replacement, then rows inside each
of them, the same draws for A and B. Of few rounds such percentiles are too narrow; so they are taken at Φ(±√(R / (R − 1)) · t)
for R rounds, t being Student's 97.5% point with R − 1 degrees of freedom (Hesterberg 2014, arXiv 1411.5279: the expanded
percentile interval).

Two processes of one artifact differ for as long as they live (where their memory lies, on which core a neighbor works): by 1.5%
in standard deviation in one hour and 2.5% in another, on 2 virtual cores of a Zen 4, one row at a time; for many rows together
the same is assumed. Rounds can't show that, so the larger is added to the interval, in squares.

Candidates of two sessions never stood side by side: their rounds are drawn apart, and the ends of the interval are moved outward
by as much as the pace had changed for the candidate that was in both.

Beside other processes that stay busy, the scheduler may make one candidate wait for them, and not the next, from its first turn
to its last: no number of rounds shows that. So the ends are moved outward by what a call may have been slowed at worst
(outside_load.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import isinf
from zlib import crc32

import numpy as np

from trimtune.choose.readings import least, overlap
from trimtune.measure._intervals import Z95
from trimtune.records import PREFERRED
from trimtune.results import Row, Turns

LATENCY, THROUGHPUT = PREFERRED["latency"], PREFERRED["throughput"]
TIMED = {LATENCY: "ms", THROUGHPUT: "bulk_ms"}
"""readings that are compared so → where their times stand among a candidate's turns"""
RESAMPLES = 2000
_PROCESS = 0.025
"""standard deviation of the logarithm of two processes' times, where both run one artifact"""


@dataclass(frozen=True)
class Ratio:
    """How many times as long one candidate takes as another, with the ends of its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def tied(self) -> bool:
        return self.low <= 1 <= self.high


@dataclass(frozen=True)
class Speeds:
    """The times of candidates, by their names. Results of before these were kept have none: intervals then have to do."""

    turns: Mapping[str, Turns]

    def ratio(self, first: str, second: str, reading: str = LATENCY) -> Ratio | None:
        """How many times as long the first one takes; None where the rounds of one of them aren't known."""
        ms, theirs_ms = self._ms(first, reading), self._ms(second, reading)
        if not ms or not theirs_ms:
            return None
        one, other = self.turns[first], self.turns[second]
        beside = one.session == other.session and len(ms) == len(theirs_ms)
        # a slow one's turn may have been cut: the rows that it didn't reach are left out of the other's as well
        counts = tuple(min(len(mine), len(theirs)) for mine, theirs in zip(ms, theirs_ms, strict=True)) if beside else ()
        middle_one, middle_other = _middles(_cut(ms, counts)), _middles(_cut(theirs_ms, counts))
        drawn_one, drawn_other = self._drawn(first, counts, reading), self._drawn(second, counts, reading)
        if beside:
            middle, drawn_B, moved = np.median(middle_one - middle_other), np.median(drawn_one - drawn_other, axis=1), 0.0
        else:
            middle = np.median(middle_one) - np.median(middle_other)
            drawn_B = np.median(drawn_one, axis=1) - np.median(drawn_other, axis=1)
            moved = float(np.abs(np.log([one.drift, other.drift])).sum())
        moved += float(np.log(max(one.slowed, other.slowed)))
        low, high = np.quantile(drawn_B, _percentiles(min(len(ms), len(theirs_ms))))
        low = middle - np.hypot(max(0, middle - low), Z95 * _PROCESS) - moved
        high = middle + np.hypot(max(0, high - middle), Z95 * _PROCESS) + moved
        return Ratio(*(float(np.exp(each)) for each in (middle, low, high)))

    def faster(self, first: Row, second: Row, reading: str = LATENCY) -> bool:
        """Whether the first one is shown to be faster; one without a reading is slower than any that has one."""
        one, other = least(first, reading), least(second, reading)
        if isinf(one) or isinf(other):
            return one < other
        found = self.ratio(first.name, second.name, reading)
        if found:
            return found.high < 1
        return one < other and not overlap(first.readings[reading], second.readings[reading])

    def _ms(self, name: str, reading: str) -> tuple[tuple[float, ...], ...]:
        """The times of each round, where they are known."""
        ms: tuple[tuple[float, ...], ...] = getattr(self.turns[name], TIMED[reading]) if name in self.turns else ()
        return ms if len(ms) > 1 and all(ms) else ()

    def _drawn(self, name: str, counts: tuple[int, ...], reading: str) -> np.ndarray:
        """What `_middles` is of drawn rounds, and of rows drawn inside them, [B, R]. It is asked for in many pairs."""
        ms = _cut(self._ms(name, reading), counts)
        key = name, reading, tuple(map(len, ms))
        if key not in self._kept:
            longest = max(len(times) for other in self.turns for times in self._ms(other, reading))
            self._kept[key] = _drawn_middles(ms, *_draws(self.turns[name].session, len(ms), longest))
        return self._kept[key]

    @cached_property
    def _kept(self) -> dict[tuple[str, str, tuple[int, ...]], np.ndarray]:
        return {}


def _cut(ms: Sequence[Sequence[float]], counts: Sequence[int]) -> Sequence[Sequence[float]]:
    """Of each round the first so many rows; all where there are no counts."""
    return [times[:count] for times, count in zip(ms, counts, strict=True)] if counts else ms


def _middles(ms: Sequence[Sequence[float]]) -> np.ndarray:
    """Logarithms of the medians of the rounds [R]."""
    return np.log([np.median(times) for times in ms])


@lru_cache(maxsize=4)
def _draws(session: str, rounds: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rounds are drawn [B, R], and places in [0, 1) for the rows drawn inside them [B, R, L]; a session's own."""
    rng = np.random.default_rng(crc32(session.encode()))
    return rng.integers(rounds, size=(RESAMPLES, rounds)), rng.random((RESAMPLES, rounds, longest))


def _drawn_middles(ms: Sequence[Sequence[float]], rounds_BR: np.ndarray, places_BRL: np.ndarray) -> np.ndarray:
    lengths_R = np.array([len(times) for times in ms])
    padded_RL = np.zeros((len(ms), lengths_R.max()))
    for row, times in enumerate(ms):
        padded_RL[row, :len(times)] = times
    picks_BRL = (places_BRL[..., :lengths_R.max()] * lengths_R[rounds_BR][..., None]).astype(np.int64)
    found: np.ndarray = np.log(np.median(padded_RL[rounds_BR[..., None], picks_BRL], axis=2))
    return found


def _percentiles(rounds: int) -> tuple[float, float]:
    """Where the ends lie among the resamples: (0.025, 0.975) of many rounds, (0.0024, 0.9976) of 6."""
    from scipy.special import ndtr, stdtrit

    beyond = float(ndtr(-np.sqrt(rounds / (rounds - 1)) * stdtrit(rounds - 1, 0.975)))
    return beyond, 1 - beyond
