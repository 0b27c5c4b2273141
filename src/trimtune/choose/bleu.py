"""Paired comparison by BLEU, on the same prompts: of language models with rules that give answers and have no likelihood.

Answers are drawn with replacement, the same ones for both, 1,000 times; the interval is that of the differences of the two BLEUs,
and a pair is tied where it reaches zero (Koehn 2004, "Statistical significance tests for machine translation evaluation").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtune.choose.compare import ALPHA, Compared, Difference
from trimtune.measure._text_scores import bleu

_RESAMPLES = 1000


@dataclass(frozen=True)
class Texts(Compared):
    """The score is BLEU, 0 to 100; `drawn_KR` that of each resample."""

    drawn_KR: np.ndarray

    def difference(self, first: str, second: str) -> Difference:
        i, j = self.names.index(first), self.names.index(second)
        return _difference(float(self.score_K[i] - self.score_K[j]), self.drawn_KR[i] - self.drawn_KR[j], self.n)


def texts(statistics: Mapping[str, Sequence[Sequence[int]]], like: str) -> Texts:
    """Compare all who answered as many prompts as `like` did: the others' answers are not to the same ones.

    Args:
        statistics: name → of each answer BLEU's 10 counts (`bleu_statistics`).
    """
    n = len(statistics.get(like, ()))
    names = tuple(name for name, found in statistics.items() if n and len(found) == n)
    sums_KN10 = np.array([statistics[name] for name in names], dtype=float).reshape(len(names), n, 10)
    weights_RN = np.random.default_rng(0).multinomial(n, np.full(n, 1 / max(n, 1)), size=_RESAMPLES) if n else np.zeros((1, 0))
    score_K = np.array([bleu(sums_N10.sum(axis=0)[None])[0] for sums_N10 in sums_KN10])
    drawn_KR = np.array([bleu(weights_RN @ sums_N10) for sums_N10 in sums_KN10])
    found = [[_difference(float(one - other), of_one - of_other, n) for other, of_other in zip(score_K, drawn_KR, strict=True)]
             for one, of_one in zip(score_K, drawn_KR, strict=True)]
    better_KK = np.array([[each.value > 0 and not each.tied for each in line] for line in found])
    return Texts(names, score_K, better_KK, n, drawn_KR)


def _difference(value: float, drawn_R: np.ndarray, n: int) -> Difference:
    p = min(1.0, 2 * float(min((drawn_R <= 0).mean(), (drawn_R >= 0).mean())))
    low, high = np.percentile(drawn_R, [100 * ALPHA / 2, 100 * (1 - ALPHA / 2)])
    if p >= ALPHA:
        low, high = min(low, 0.0), max(high, 0.0)
    return Difference(value, float(low), float(high), p, n)
