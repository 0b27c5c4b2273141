"""Paired comparison of candidates on the test rows that all of them answered.

Two candidates are compared on the rows where exactly one of them is right: b rows where only the first is, c where only
the second. Exact McNemar test: p = 2·P(Binomial(b+c, 1/2) ≤ min(b, c)). The interval of the difference in accuracy is
(2θ - 1)·(b+c)/n with θ in the Clopper-Pearson 95% interval of b/(b+c); it excludes zero exactly when p < 0.05.
(McNemar 1947; Clopper & Pearson 1934.) Rows that both answer alike say nothing about who is better, so that pairs are
told apart with far fewer rows than two separate intervals would need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtune.errors import TrimtuneError

ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """Accuracy of one candidate minus that of another, as fractions of 1, with its 95% interval."""

    value: float
    low: float
    high: float
    p: float
    n: int

    @property
    def tied(self) -> bool:
        return self.p >= ALPHA


@dataclass(frozen=True)
class Answers:
    """Which candidate is right on which rows. `only_KK[i, j]` counts rows where i is right and j is not."""

    names: tuple[str, ...]
    accuracy_K: np.ndarray
    only_KK: np.ndarray
    better_KK: np.ndarray
    """[i, j]: i is significantly more accurate than j"""
    n: int

    def better(self, first: str, second: str) -> bool:
        return bool(self.better_KK[self.names.index(first), self.names.index(second)])

    def accuracy(self, name: str) -> float:
        return float(self.accuracy_K[self.names.index(name)])

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
    right_KN = np.array([predictions[name] for name in names], dtype=np.int64).reshape(len(names), -1) == np.asarray(truth)
    counted_KN = right_KN.astype(np.float32)
    only_KK = np.rint(counted_KN @ (1 - counted_KN).T).astype(np.int64)
    discordant_KK = only_KK + only_KK.T
    p_KK = np.minimum(1.0, 2 * bdtr(np.minimum(only_KK, only_KK.T).astype(float), np.maximum(discordant_KK, 1), 0.5))
    better_KK = (only_KK > only_KK.T) & (p_KK < ALPHA)
    return Answers(tuple(names), right_KN.mean(axis=1), only_KK, better_KK, len(truth))


def paired_difference(only_first: int, only_second: int, n: int) -> Difference:
    """Difference of two accuracies over the same n rows, from the rows where only one of the two is right."""
    from scipy.special import bdtr, betaincinv

    discordant = only_first + only_second
    if discordant == 0:
        return Difference(0.0, 0.0, 0.0, 1.0, n)
    low = betaincinv(only_first, only_second + 1, ALPHA / 2) if only_first else 0.0
    high = betaincinv(only_first + 1, only_second, 1 - ALPHA / 2) if only_second else 1.0
    p = min(1.0, 2 * float(bdtr(float(min(only_first, only_second)), discordant, 0.5)))
    return Difference((only_first - only_second) / n, (2 * float(low) - 1) * discordant / n,
                      (2 * float(high) - 1) * discordant / n, p, n)
