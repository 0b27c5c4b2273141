"""A study's rows in their three splits, and the folder that keeps them: a file of JSON Lines per split, and `facts.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from trimtune.results import DataFacts
from trimtune.study.sources import SPLITS

Split = TypeVar("Split")


@dataclass(frozen=True)
class Rows(Generic[Split]):
    train: Split
    validation: Split
    test: Split
    facts: DataFacts


def save(rows: Rows[Split], folder: Path, lines: Callable[[Split], Iterable[dict[str, Any]]]) -> None:
    """Write `train.jsonl`, `validation.jsonl` and `test.jsonl`, an object of `lines` each line, and `facts.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SPLITS:
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines(getattr(rows, name)))
    (folder / "facts.json").write_text(rows.facts.model_dump_json(indent=1), encoding="utf-8")


def load(folder: Path, split: Callable[[list[dict[str, Any]], DataFacts], Split]) -> Rows[Split]:
    """What `save` wrote, each split made of its lines."""
    facts = DataFacts.model_validate_json((folder / "facts.json").read_bytes())

    def read(name: str) -> Split:
        with (folder / f"{name}.jsonl").open(encoding="utf-8", newline="\n") as file:
            return split([json.loads(line) for line in file], facts)

    return Rows(read("train"), read("validation"), read("test"), facts)
