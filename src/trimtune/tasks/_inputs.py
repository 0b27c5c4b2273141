"""Rows as a model takes them, whatever the task."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

READING = "rendering.json"
"""the file of a model folder that tells how its rows became tokens, where the tokenizer alone doesn't say"""


@dataclass(frozen=True)
class Inputs:
    """Row i is `ids[i]`; `targets[i]` is what its task compares the answer with.

    Args:
        counts: how much of each row the loss counts: 1, or its learned tokens.
        pad_id: the token that shorter rows of a batch are filled with; its places are masked.
        notes: what the user should know, such as rows that were cut.
        numbers: the row of the file that each is, or is a piece of, where rows can be cut into several or left out.
    """

    ids: list[list[int]]
    targets: list[Any]
    counts: list[int]
    pad_id: int
    notes: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


def reading_in(folder: Path) -> dict[str, Any]:
    """What a tuned folder says about how its rows became tokens; nothing where the tokenizer alone says it."""
    path = folder / READING
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
