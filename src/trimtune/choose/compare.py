"""Paired comparison of candidates on the test rows that all of them answered.

Two candidates are compared on the rows where exactly one of them is right: b rows where only the first is, c where only
the second. Exact McNemar test (McNemar 1947): p = 2·P(Binomial(b+c, 1/2) ≤ min(b, c)). The interval of the difference in
accuracy is Tango's score interval for paired shares (Tango 1998); where the exact test, the stricter of the two, calls a
pair tied, the interval reaches zero, so that the two never disagree. Rows that both answer alike say nothing about who is
better, so that pairs are told apart with far fewer rows than two separate intervals would need.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtune.errors import TrimtuneError

ALPHA, _Z = 0.05, 1.959963984540054


@dataclass(frozen=True)
class Difference:
    """Score of one candidate minus that of another, with its 95% interval: accuracy as a fraction of 1, or log-likelihood in
    nats per token."""

    value: float
    low: float
    high: float
    p: float
    n: int

    @property
    def tied(self) -> bool:
        return self.p >= ALPHA


@dataclass(frozen=True)
class Compared(ABC):
    """Candidates on the same `n` test rows."""

    names: tuple[str, ...]
    score_K: np.ndarray
    """higher is better"""
    better_KK: np.ndarray
    """[i, j]: i is significantly better than j"""
    n: int

    def better(self, first: str, second: str) -> bool:
        return bool(self.better_KK[self.names.index(first), self.names.index(second)])

    def score(self, name: str) -> float:
        return float(self.score_K[self.names.index(name)])

    @abstractmethod
    def difference(self, first: str, second: str) -> Difference:
        """The first one's score minus the second one's."""


@dataclass(frozen=True)
class Answers(Compared):
    """Which candidate is right on which rows; the score is the accuracy. `only_KK[i, j]` counts rows where i is right, j not."""

    only_KK: np.ndarray
    said_KN: np.ndarray
    truth_N: np.ndarray

    def said(self, name: str) -> np.ndarray:
        """The label index of each row [N]."""
        found: np.ndarray = self.said_KN[self.names.index(name)]
        return found

    def difference(self, first: str, second: str) -> Difference:
        i, j = self.names.index(first), self.names.index(second)
        return paired_difference(int(self.only_KK[i, j]), int(self.only_KK[j, i]), self.n)


def answers(predictions: Mapping[str, Sequence[int]], truth: Sequence[int], names: Sequence[str]) -> Answers:
    """Compare all pairs of `names` at once: K × K counts by one matrix product, all p-values in one call.

    Raises:
        TrimtuneError: a candidate has no predictions, or not one per row.
    """
    from scipy.special import bdtr

    bad = next((name for name in names if len(predictions.get(name, ())) != len(truth)), None)
    if bad is not None or not truth:
        raise TrimtuneError(f"The predictions of {bad or 'the candidates'} don't match the {len(truth)} test rows.",
                            "Each measured candidate needs one prediction for each test row.", "Run the study again.")
    said_KN, truth_N = np.array([predictions[name] for name in names], dtype=np.int64).reshape(len(names), -1), np.asarray(truth)
    right_KN = said_KN == truth_N
    counted_KN = right_KN.astype(np.float32)
    only_KK = np.rint(counted_KN @ (1 - counted_KN).T).astype(np.int64)
    discordant_KK = only_KK + only_KK.T
    p_KK = np.minimum(1.0, 2 * bdtr(np.minimum(only_KK, only_KK.T).astype(float), np.maximum(discordant_KK, 1), 0.5))
    better_KK = (only_KK > only_KK.T) & (p_KK < ALPHA)
    return Answers(tuple(names), right_KN.mean(axis=1), better_KK, len(truth), only_KK, said_KN, truth_N)


def paired_difference(only_first: int, only_second: int, n: int) -> Difference:
    """Difference of two accuracies over the same n rows, from the rows where only one of the two is right."""
    from scipy.special import bdtr

    discordant, value = only_first + only_second, (only_first - only_second) / n
    p = min(1.0, 2 * float(bdtr(float(min(only_first, only_second)), max(discordant, 1), 0.5)))
    low = -_score_bound(only_second, only_first, n)
    high = _score_bound(only_first, only_second, n)
    if p >= ALPHA:
        low, high = min(low, 0.0), max(high, 0.0)
    return Difference(value, low, high, p, n)


def _score_bound(first: int, second: int, n: int) -> float:
    """Upper end of Tango's interval, by bisection: the difference at which the score falls to -1.96."""
    low, high = (first - second) / n, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        slope = (2 * n - first + second) * middle - first - second
        both = (math.sqrt(max(0.0, slope**2 + 8 * n * second * middle * (1 - middle))) - slope) / (4 * n)
        variance = n * (2 * both + middle * (1 - middle))
        if variance > 0 and first - second - n * middle > -_Z * math.sqrt(variance):
            low = middle
        else:
            high = middle
    return high
