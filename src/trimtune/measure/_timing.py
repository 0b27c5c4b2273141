"""Calls timed in a process that has come to rest."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean, variance
from typing import TypeVar

Item = TypeVar("Item")
_LAST = 30
"""calls that a trend is looked for in"""


@contextmanager
def quiet(settle_seconds: float) -> Iterator[None]:
    """Let the candidate that ran before come to rest (its threads may spin a moment), and keep our collector out."""
    time.sleep(settle_seconds)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def until_steady(call: Callable[[Item], object], items: Sequence[Item], at_most: float) -> None:
    """Call until the times of the last calls no longer have a trend, or `at_most` seconds are spent.

    z = (mean of the first 30% − mean of the last half) / √(their variances, each by its count), |z| < 2, of the last 30 calls:
    the diagnostic of Geweke 1992 ("Evaluating the accuracy of sampling-based approaches"), with a larger first part, since so
    few calls are looked at.
    """
    begun, taken = time.perf_counter(), list[float]()
    while time.perf_counter() - begun < at_most:
        taken += passes(call, items, 0.0, at_most)
        if len(taken) >= _LAST and abs(trend(taken[-_LAST:])) < 2:
            return


def trend(seconds: Sequence[float]) -> float:
    """Geweke's z of times in the order in which they were taken; 0 where they don't differ at all."""
    first, last = seconds[:round(0.3 * len(seconds))], seconds[len(seconds) // 2:]
    spread = math.sqrt(variance(first) / len(first) + variance(last) / len(last))
    return (fmean(first) - fmean(last)) / spread if spread else 0.0


def passes(call: Callable[[Item], object], items: Sequence[Item], seconds: float, at_most: float) -> list[float]:
    """Seconds of each call, over whole passes through `items` until `seconds` are spent.

    Whole passes, so that a fast candidate is not timed on other rows than a slow one. A pass is cut at `at_most` seconds.
    """
    taken: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or not taken:
        for item in items:
            started = time.perf_counter()
            call(item)
            ended = time.perf_counter()
            taken.append(ended - started)
            if ended - begun > at_most:
                return taken
    return taken
