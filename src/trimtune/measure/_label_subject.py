"""A candidate that gives texts a label, loaded in its own process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from trimtune.errors import StepFailed
from trimtune.measure._candidate import Loaded, load, share
from trimtune.study import data


@dataclass
class LabelSubject:
    """`loaded.run` maps int64 [B, T] inputs to float32 logits [B, C]."""

    folder: Path
    loaded: Loaded
    encode: Callable[[Sequence[str]], dict[str, np.ndarray]]
    texts: list[str]
    labels: list[int]
    classes: tuple[str, ...]
    turn: int = 0
    together: int = 32
    opening: dict[str, Any] = field(default_factory=dict)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Raw texts to logits [B, C]: tokenizing is part of it, as it is for a user."""
        logits_BC: np.ndarray = self.loaded.run(self.encode(texts))
        return logits_BC

    def draw(self, count: int, seed: int, turn: int | None = None) -> list[str]:
        """A turn's share of the test rows (the present turn's, if none is given)."""
        return share(self.texts, count, seed, self.turn if turn is None else turn)

    def work(self, rows: int, seed: int) -> None:
        self.logits(self.draw(rows, seed))

    def text(self) -> str:
        return self.texts[0]


def open_labels(task: ModuleType, folder: Path, engine: str, rows: Path, max_length: int, threads: int,
                reading: dict[str, Any], split: str = "test") -> LabelSubject:
    """A candidate and the texts of one split."""
    tokenizer, read = task.load_tokenizer(folder), data.load(rows)
    asked: data.Split = getattr(read, split)

    def encode(texts: Sequence[str]) -> dict[str, np.ndarray]:
        encoded: dict[str, np.ndarray] = task.encode(tokenizer, texts, max_length, **reading)
        return encoded

    encode(asked.texts[:32])  # the tokenizer's own memory is there before the engine's
    return LabelSubject(folder, load(folder, engine, threads), encode, list(asked.texts), list(asked.labels),
                        tuple(read.facts.labels))


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
