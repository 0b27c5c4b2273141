"""Expected calibration error: how far a classifier's confidence in its answers is from how often such answers are right.

    ECE = Σ_m |B_m| / n · |acc(B_m) − conf(B_m)|        conf: mean of the largest softmax probability of the rows in bin m

Guo et al. 2017 (arXiv 1706.04599), section 2, take bins of equal width. Here the 15 bins hold equally many rows: a tuned
classifier is nearly sure of most rows, so that of bins of equal width one would hold almost all of them, and what it averages
away is not seen. Rows of equal confidence share a bin.

Even confidences that are exactly right read above 0, since each bin's share of right answers has its noise; with ten rows per bin
that is several points. What they would read is drawn from the confidences themselves (Bröcker and Smith 2007, Weather and
Forecasting 22: consistency resampling). The interval is ±1.96 bootstrap standard errors (Efron and Tibshirani 1993, chapter 6):
the percentiles of resampled errors lie above the error, since drawing rows again adds as much noise as they had.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trimtune.measure._intervals import Z95

BINS, NEEDED = 15, 150
"""ten rows per bin"""


class Calibration(NamedTuple):
    """The error with the ends of its 95% interval; what right confidences read by chance: on average, 95 of 100 times at most."""

    value: float
    low: float
    high: float
    chance: float
    chance_high: float


def error(confidence_N: np.ndarray, right_N: np.ndarray) -> float:
    """As a fraction of 1."""
    return _error(confidence_N, right_N, _bins(confidence_N))


def calibration(confidence_N: np.ndarray, right_N: np.ndarray, resamples: int, seed: int) -> Calibration:
    """Of at least NEEDED rows."""
    rng, n = np.random.default_rng(seed), len(confidence_N)
    value, bin_N = error(confidence_N, right_N), _bins(confidence_N)
    drawn = [rng.integers(n, size=n) for _ in range(resamples)]
    reach = Z95 * float(np.std([error(confidence_N[rows], right_N[rows]) for rows in drawn], ddof=1))
    by_chance = [_error(confidence_N, rng.random(n) < confidence_N, bin_N) for _ in range(resamples)]
    return Calibration(value, max(0.0, value - reach), min(1.0, value + reach), float(np.mean(by_chance)),
                       float(np.percentile(by_chance, 95)))


def _error(confidence_N: np.ndarray, right_N: np.ndarray, bin_N: np.ndarray) -> float:
    """|B|·|acc − conf| of a bin is the sum of its rows' right − confidence."""
    return float(np.abs(np.bincount(bin_N, weights=right_N - confidence_N, minlength=BINS)).sum() / len(confidence_N))


def _bins(confidence_N: np.ndarray) -> np.ndarray:
    edges = np.quantile(confidence_N, np.arange(1, BINS) / BINS)
    found_N: np.ndarray = np.searchsorted(edges, confidence_N)
    return found_N
