"""Intervals of the readings, and the rule for which percentiles may be given at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

Z95 = 1.959963984540054
RESAMPLES = 1000


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share (Wilson 1927): honest near 0 and 1 and for small n, where ±1.96·SE is not.

    (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    """
    share, square = hits / n, Z95**2
    middle = share + square / (2 * n)
    half = Z95 * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    low, high = (middle - half) / (1 + square / n), (middle + half) / (1 + square / n)
    return max(0.0, low) if hits else 0.0, min(1.0, high) if hits < n else 1.0


def samples_needed(percentile: float) -> int:
    """A percentile p is given from 10/(1-p) samples on: at least ten of them then lie beyond it. p95 needs 200."""
    return math.ceil(round(10 / (1 - percentile / 100), 6))


def percentile_of(rounds: Sequence[Sequence[float]], percentile: float) -> float:
    """A percentile of samples taken in rounds, each round with the same weight however many samples it gave.

    A turn that takes too long is cut, so that a slow round gives fewer samples than a quick one. In a pool of all samples the
    quick moments would count for more than their share. With as many samples in each round it is numpy's percentile.
    """
    values = np.concatenate([np.asarray(taken, dtype=float) for taken in rounds])
    weights = np.concatenate([np.full(len(taken), 1 / len(taken)) for taken in rounds if len(taken)])
    order = values.argsort(kind="stable")
    before = weights[order].cumsum() - weights[order]
    return float(np.interp(percentile / 100 * before[-1], before, values[order]))


def percentile_interval(rounds: Sequence[Sequence[float]], percentile: float, seed: int = 0) -> tuple[float, float]:
    """Bootstrap 95% interval of a percentile of samples taken in rounds.

    Rounds are drawn with replacement, then samples inside each: samples of one round share the machine's mood, so that
    drawing from the pool of all would promise too much.
    """
    rng = np.random.default_rng(seed)
    taken = [np.asarray(values, dtype=float) for values in rounds if len(values)]
    lengths = np.array([len(values) for values in taken])
    padded_RL = np.zeros((len(taken), lengths.max()))
    for row, values in enumerate(taken):
        padded_RL[row, :len(values)] = values
    drawn_BR = rng.integers(len(taken), size=(RESAMPLES, len(taken)))
    picks_BRL = (rng.random((RESAMPLES, len(taken), lengths.max())) * lengths[drawn_BR][..., None]).astype(np.int64)
    found = np.percentile(padded_RL[drawn_BR[..., None], picks_BRL].reshape(RESAMPLES, -1), percentile, axis=1)
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def bootstrap(values_NK: np.ndarray, of: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> tuple[float, float]:
    """Bootstrap 95% interval of what follows from sums over independent units.

    Units are drawn with replacement, N of N, and their K values summed; `of` maps such sums [B, K] to statistics [B].
    """
    rng, n = np.random.default_rng(seed), len(values_NK)
    sums_BK = np.stack([values_NK[rng.integers(n, size=n)].sum(axis=0) for _ in range(RESAMPLES)])
    low, high = np.percentile(of(sums_BK), [2.5, 97.5])
    return float(low), float(high)


def ratio_error(values_N: np.ndarray, counts_N: np.ndarray) -> float:
    """The standard error of Σ values / Σ counts over N independent units: √(N · Var(values − ratio · counts)) / Σ counts (Cochran
    1977, section 6.4). Infinite for a single unit."""
    n, total = len(counts_N), counts_N.sum()
    if n < 2:
        return math.inf
    return float(np.sqrt(n * (values_N - values_N.sum() / total * counts_N).var(ddof=1)) / total)


def median_range(values: Sequence[float]) -> tuple[float, float, str]:
    """Interval of the median from order statistics: the narrowest pair of ranks with 95% coverage, else the whole range.

    P(x_(k) < median < x_(n+1-k)) = 1 - 2·P(Binomial(n, 1/2) < k). Six values' range covers 96.9%.

    Returns:
        low, high, and how they were made.
    """
    ordered, n = sorted(values), len(values)
    rank, beyond = 1, 2 * 0.5**n
    while rank < n // 2 and beyond + 2 * math.comb(n, rank) * 0.5**n <= 0.05:
        beyond += 2 * math.comb(n, rank) * 0.5**n
        rank += 1
    return ordered[rank - 1], ordered[n - rank], f"order statistics of {n} rounds {100 * max(0.0, 1 - beyond):.0f}%"
