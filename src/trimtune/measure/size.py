"""Bytes on disk of everything that would ship: weights or engine files, tokenizer, configuration. In MB (10^6 bytes).

A file that two artifacts share by a hard link counts in full for each, since each would ship it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from trimtune.measure._candidate import Subject
from trimtune.records import Better, Reading

TASKS = ("causal_lm", "text_classification")
READINGS: dict[str, tuple[str, Better]] = {"size_mb": ("MB", "lower")}
ROUNDS = 1
_NOT_SHIPPED = "artifact.json"
"""the store's own record"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def sample(subject: Subject, config: Config) -> dict[str, Any]:
    """`bytes` of the runnable folder, and of each file in it."""
    files = shipped(subject.folder)
    return {"bytes": sum(files.values()), "files": files}


def shipped(folder: Path) -> dict[str, int]:
    """The bytes of each file of a runnable folder."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*"))
            if path.is_file() and path.relative_to(folder).as_posix() != _NOT_SHIPPED}


def summarize(samples: list[dict[str, Any]], config: Config) -> dict[str, Reading]:
    """Size in MB; exact, so without an interval."""
    unit, better = READINGS["size_mb"]
    return {"size_mb": Reading(name="size_mb", value=samples[0]["bytes"] / 1e6, unit=unit, better=better, n=1)}
