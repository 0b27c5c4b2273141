"""Bytes on disk of everything that would ship: weights or engine files, tokenizer, configuration. In MB (10^6 bytes).

    size_mb     all of it
    weights_mb  the files that hold the model's weights; what is left is tokenizer and configuration, which no trim but of the
                vocabulary makes smaller

A file that two artifacts share by a hard link counts in full for each, since each would ship it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from trimtune.measure._candidate import Subject
from trimtune.records import Quantity, Reading

TASKS = ("causal_lm", "text_classification")
READINGS = {
    "size_mb": Quantity("MB", "lower", "Size on disk", "Bytes on disk of what would be shipped."),
    "weights_mb": Quantity("MB", "lower", "Weights on disk",
                           "Those of them that are weights; the others are the tokenizer and settings.")}
ROUNDS = 1
_WEIGHTS = {".safetensors", ".onnx", ".bin", ".gguf", ".plan"}
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
    """Sizes in MB; exact, so without an interval."""
    weights = sum(size for name, size in samples[0]["files"].items() if Path(name).suffix in _WEIGHTS)
    found = {"size_mb": samples[0]["bytes"], "weights_mb": weights}
    return {name: Reading(name=name, value=found[name] / 1e6, unit=unit, better=better, n=1)
            for name, (unit, better, *_) in READINGS.items()}
