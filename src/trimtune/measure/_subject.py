"""The worker's side of measuring: a candidate that is loaded in its own process and takes its turns there."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.measure import _machine
from trimtune.study import data

Item = TypeVar("Item")


@dataclass
class Subject:
    """A runnable folder, loaded. `run` maps int64 [B, T] inputs to float32 logits [B, C]; `turn` counts from 0."""

    run: Callable[[dict[str, np.ndarray]], np.ndarray]
    encode: Callable[[Sequence[str]], dict[str, np.ndarray]]
    texts: list[str]
    labels: list[int]
    classes: tuple[str, ...]
    folder: Path
    before_mb: float
    """resident memory before the engine was loaded"""
    peak_resets: bool
    turn: int = 0

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Raw texts to logits [B, C]: tokenizing is part of it, as it is for a user."""
        return self.run(self.encode(texts))

    def draw(self, count: int, seed: int, turn: int | None = None) -> list[str]:
        """A turn's share of the test rows in seeded order (the present turn's, if none is given): every candidate meets
        the same rows in a turn."""
        order = np.random.default_rng(seed).permutation(len(self.texts))
        start = (self.turn if turn is None else turn) * count
        return [self.texts[order[index % len(order)]] for index in range(start, start + count)]


def open_subject(folder: Path, engine: str, rows: Path, task: str, max_length: int, threads: int) -> Subject:
    """Load a candidate as a user of the shipped folder would: nothing but the folder and the engine."""
    module, rows_read = parts.load("task", task), data.load(rows)
    tokenizer, test = module.load_tokenizer(folder), rows_read.test

    def encode(texts: Sequence[str]) -> dict[str, np.ndarray]:
        encoded: dict[str, np.ndarray] = module.encode(tokenizer, texts, max_length)
        return encoded

    encode(test.texts[:32])  # the tokenizer's own memory is every candidate's alike: it belongs below the baseline
    gc.collect()
    resets = _machine.reset_peak()
    before = _machine.peak_mb()
    run = parts.load("engine", engine).load(folder, threads)
    gc.freeze()  # what is loaded stays: without it, each turn's collection would walk through all of torch's objects
    return Subject(run, encode, list(test.texts), list(test.labels), tuple(rows_read.facts.labels), folder, before, resets)


def take_turn(subject: Subject, measure: str, config: dict[str, Any], turn: int) -> Any:
    """One sample of one measure; what it returns is plain JSON."""
    subject.turn = turn
    module = parts.load("measure", measure)
    return module.sample(subject, module.Config(**config))


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


def finite(logits_BC: np.ndarray, classes: int) -> np.ndarray:
    """The logits, if they can be answers.

    Raises:
        StepFailed: not [B, C], or not finite; an argmax over NaN would otherwise pass for class 0.
    """
    if logits_BC.ndim != 2 or logits_BC.shape[1] != classes:
        raise StepFailed(f"it gives answers of shape {list(logits_BC.shape)} where [rows, {classes}] is expected")
    if not np.isfinite(logits_BC).all():
        raise StepFailed("it gives answers that are not finite numbers")
    return logits_BC
