"""What baselines are, and the step of one that gives labels: it is fitted on the training rows, then answers validation and
test rows without their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.study import data

Answer = Callable[[Sequence[str]], list[int]]
"""texts → label index of each"""


@dataclass(frozen=True)
class Rule:
    """A fitted baseline. `size_bytes`: what it would take to keep it, if that is worth a word; `note`: what was chosen on
    the validation rows."""

    answer: Answer
    size_bytes: int | None
    note: str = ""


@dataclass(frozen=True)
class Speaker:
    """A baseline of language models. Either `answer`, prompts → the text of each one's answer; or `model`, the folder of one that
    is asked as tuned models are."""

    size_bytes: int
    answer: Callable[[Sequence[str]], list[str]] | None = None
    model: Path | None = None
    note: str = ""


def run(folder: Path, *, baseline: str, base: Path, rows: Path, task: str, max_length: int) -> dict[str, Any]:
    """Work of the step; writes no file. Facts: `predictions` and `accuracy` by split, `size_bytes`, `note`."""
    read = data.load(rows)
    rule: Rule = parts.load("baseline", baseline).fit(read.train, read.validation, len(read.facts.labels), base, task, max_length)
    splits = {"validation": read.validation, "test": read.test}
    found = {name: rule.answer(split.texts) for name, split in splits.items()}
    return {"predictions": found, "accuracy": {name: share(found[name], split) for name, split in splits.items()},
            "size_bytes": rule.size_bytes, "note": rule.note}


def share(answers: Sequence[int], split: data.Split) -> float:
    """The share of a split's rows that are answered right."""
    return sum(answer == label for answer, label in zip(answers, split.labels, strict=True)) / len(split)
