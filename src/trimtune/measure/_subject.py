"""The worker's side of measuring: a candidate that is loaded in its own process and takes its turns there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.measure._candidate import Subject
from trimtune.measure._label_subject import open_labels
from trimtune.measure._lm_subject import open_lm
from trimtune.study import language


def open_subject(folder: Path, engine: str, rows: Path, task: str, max_length: int, threads: int,
                 reading: dict[str, Any], split: str = "test") -> Subject:
    """Load a candidate as a user of the shipped folder would: nothing but the folder and the engine.

    Args:
        reading: what beside `max_length` decides how the task's rows become tokens.
        split: the rows that it is asked.
    """
    module = parts.load("task", task)
    open_ = open_lm if module.rows is language else open_labels
    subject: Subject = open_(module, folder, engine, rows, max_length, threads, reading, split)
    subject.opening = {"engine": engine, "task": task, "max_length": max_length, "threads": threads, "reading": reading}
    return subject


def take_turn(subject: Subject, measure: str, config: dict[str, Any], turn: int) -> Any:
    """One sample of one measure; what it returns is plain JSON."""
    subject.turn = turn
    module = parts.load("measure", measure)
    return module.sample(subject, module.Config(**config))
