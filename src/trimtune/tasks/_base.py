"""The base step: the pretrained model as every later step finds it, with this study's labels in its config."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.records import Artifact, Study
from trimtune.store import Store, sha256
from trimtune.study.model import SUFFIXES, WEIGHTS, locate
from trimtune.tasks import _shapes
from trimtune.tasks._inputs import READING

_OF_A_FIT = {READING, "metrics.json"}
"""what an earlier fit of ours said about itself in this folder"""


def base_of(study: Study, labels: Sequence[str], store: Store) -> Artifact:
    """The base artifact: a model folder without an adapter. Its key holds the hashes of its files, not where they lay.

    Raises:
        TrimtuneError: no such model, or one that a trim cut already.
    """
    source = locate(study.model)
    if _shapes.is_marked(source):
        raise TrimtuneError(f"model: {source} is what a trim left: its layers have other shapes than its config says.",
                            "Allowed: a model that plain transformers reads.",
                            "Give the model that it was cut from, and name its trims in the study's `trim`.")
    config = {"files": {path.name: sha256(path) for path in files_of(source)}, "labels": list(labels)}
    arguments = {"source": source, "task": study.task, "labels": list(labels), "name": study.model}
    code = parts.source_hash("task", study.task)
    return store.step("base", study.task, copy, arguments, config=config, code=code)


def reading_of(study: Study, rows: Artifact) -> dict[str, Any]:
    """What beside `max_length` decides how the rows become tokens, for the keys of all steps that read them."""
    found: dict[str, Any] = parts.load("task", study.task).reading(study, rows.facts.get("kind", ""))
    return found


def copy(folder: Path, *, source: Path, task: str, labels: Sequence[str], name: str) -> dict[str, Any]:
    """Make `folder` the pretrained model of `source` with these labels. Returns facts of it."""
    for path in files_of(source):
        try:
            os.link(path.resolve(), folder / path.name)
        except OSError:
            shutil.copy2(path, folder / path.name)
    part = parts.load("task", task)
    part.describe_base(folder, labels)
    drawn = part.complete(folder)
    return {"name": name, "parameters": _parameters(folder / WEIGHTS), "drawn_at_random": drawn}


def files_of(source: Path) -> list[Path]:
    """Those that make a pretrained model's folder."""
    return sorted(path for path in source.iterdir() if path.is_file() and path.suffix in SUFFIXES and path.name not in _OF_A_FIT)


def _parameters(path: Path) -> int:
    """Numbers in a safetensors file, from its header alone."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            count = 1
            for size in tensor["shape"]:
                count *= size
            total += count
    return total
