"""What is the same for every candidate that is measured: its folder, what it weighs on its process, its turns."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from trimtune.engines import _threads
from trimtune.measure import _machine

Item = TypeVar("Item")


class Loaded(NamedTuple):
    """An engine's own `load`, and the process before it."""

    run: Any
    before_mb: float
    """resident memory before the engine was loaded"""
    peak_resets: bool
    before_private_mb: float | None = None
    """memory of the process's own before that; None where the system doesn't tell"""


class Subject(Protocol):
    """What measures of every task can ask of a candidate. `turn` counts from 0."""

    turn: int
    together: int
    """rows that are answered together, if nobody says otherwise"""
    opening: dict[str, Any]
    """what `open_subject` was given, but for folder and rows"""

    @property
    def folder(self) -> Path: ...

    @property
    def loaded(self) -> Loaded: ...

    def work(self, rows: int, seed: int) -> None:
        """Answer so many test rows together, as a user would."""

    def text(self) -> str:
        """One that it may be asked."""


def load(folder: Path, engine: str, threads: int) -> Loaded:
    """Load a runnable folder, on as many of the cores as its notes say.

    What the caller holds by then belongs below the baseline, since it is every candidate's alike.
    """
    gc.collect()
    resets = _machine.reset_peak()
    before, private = _machine.peak_mb(), _machine.private_mb()
    run = _threads.load(engine, folder, threads)
    gc.freeze()  # what is loaded stays: without it, each turn's collection would walk through all of torch's objects
    return Loaded(run, before, resets, private)


def share(items: Sequence[Item], count: int, seed: int, turn: int) -> list[Item]:
    """A turn's share of the items in seeded order, so that every candidate meets the same ones in a turn."""
    order = np.random.default_rng(seed).permutation(len(items))
    return [items[order[index % len(order)]] for index in range(turn * count, (turn + 1) * count)]
