"""Calls timed in a process that has come to rest."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


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
