"""What a factorised embedding costs: bytes and accuracy of MiniLM at several ranks, without the recovery fit and with it, alone
and behind prune_vocabulary.

    python bench/embedding.py --json bench/results/embedding.json
    python bench/embedding.py --ranks 128 --unseen 0.01 0.1 1 --epochs 0

MiniLM is tuned in full on the help desk set (or found in --home, tuned before). `unseen` rows are those of the 480 test rows with
a token that no training row has: what the recovery fit does to words that it never sees shows there. `refit` is the control: the
same fit of the whole embedding, since a fit may help by itself. Speed is not measured here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from qat import answered, fitted, parent_of

from trimtune.measure import _machine
from trimtune.records import DataSpec
from trimtune.study import data
from trimtune.tasks import text_classification as task
from trimtune.trim import int8_qat, low_rank_embedding, prune_vocabulary
from trimtune.tune.recovery import Setting

HEAD = ("before it", "rank", "unseen", "epochs", "numerics", "accuracy", "seen rows", "unseen rows", "MB", "kept", "kept unseen")
_LENGTH = 64
_WEIGHTS = {".safetensors", ".onnx", ".bin"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="*", default=[64, 128])
    parser.add_argument("--unseen", type=float, nargs="*", default=[low_rank_embedding.Config().unseen])
    parser.add_argument("--epochs", type=int, nargs="*", default=[0, low_rank_embedding.Config().epochs])
    parser.add_argument("--before", nargs="*", default=["none", "prune_vocabulary"], choices=["none", "prune_vocabulary"])
    parser.add_argument("--engine", default="torch_eager")
    parser.add_argument("--numerics", nargs="*", default=["plain", "int8"])
    parser.add_argument("--home", type=Path, help="where the tuned model is kept, and found again")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with TemporaryDirectory() as scratch:
        home = asked.home or Path(scratch) / "home"
        (home / "rows").mkdir(parents=True, exist_ok=True)
        data.save(data.read(DataSpec(train="helpdesk"), seed=0), home / "rows")
        found = []
        print("  ".join(f"{head:>16}" for head in HEAD))
        for line in lines(asked, home, Path(scratch)):
            found.append(line)
            print("  ".join(f"{cell!s:>16}" for cell in line.values()), flush=True)
    if asked.json:
        told = {"machine": _machine.describe(), "found": found}
        asked.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def lines(asked: argparse.Namespace, home: Path, scratch: Path) -> Iterator[dict[str, Any]]:
    """A line for each parent, its refit, and each rank, share and number of epochs, in each number format."""
    rows, setting = home / "rows", Setting(home / "rows", max_length=_LENGTH)
    for before in asked.before:
        source, place = parent_of("full", home), scratch / before
        if before != "none":
            (place / "parent").mkdir(parents=True)
            prune_vocabulary.run(place / "parent", source, prune_vocabulary.Config().model_dump(), setting)
            source = place / "parent"
        for shape, folder, facts in shapes(asked, source, place, setting):
            for numerics in asked.numerics:
                name = "-".join(map(str, (*shape, numerics)))
                yield {"before": before, **dict(zip(("rank", "unseen", "epochs"), shape, strict=True)), "numerics": numerics,
                       **measured(folder, facts, rows, home, place / "engine" / name, asked.engine, numerics)}


def shapes(asked: argparse.Namespace, source: Path, place: Path, setting: Setting) -> Iterator[tuple[Any, Path, dict[str, Any]]]:
    """(rank, unseen, epochs), the model folder and the trim's facts: of the parent, what is made of it, and its refit."""
    yield ("whole", "", 0), source, {}
    for rank, unseen, epochs in product(asked.ranks, asked.unseen, asked.epochs):
        folder = place / f"{rank}-{unseen}-{epochs}"
        folder.mkdir(parents=True)
        given = low_rank_embedding.Config(rank=rank, unseen=unseen, epochs=epochs).model_dump()
        yield (rank, unseen, epochs), folder, low_rank_embedding.run(folder, source, given, setting)
    if any(asked.epochs):
        config = int8_qat.Config(epochs=max(asked.epochs), learning_rate=low_rank_embedding.Config().learning_rate)
        yield ("refit", "", config.epochs), fitted("refit", source, place / "refit", config, setting), {}


def measured(folder: Path, facts: dict[str, Any], rows: Path, home: Path, scratch: Path, engine: str,
             numerics: str) -> dict[str, Any]:
    """Accuracy of all test rows, of those without unseen tokens and of those with one; bytes of the weights."""
    logits_NC = answered(folder, rows, engine, numerics, scratch)
    right_N = logits_NC.argmax(-1) == np.array(data.load(rows).test.labels)
    unseen_N = with_unseen(parent_of("full", home), rows)
    stored = sum(path.stat().st_size for path in (scratch / "engine").rglob("*") if path.suffix in _WEIGHTS)
    return {"accuracy": round(float(right_N.mean()), 4), "accuracy_seen": round(float(right_N[~unseen_N].mean()), 4),
            "accuracy_unseen": round(float(right_N[unseen_N].mean()), 4), "weights_mb": round(stored / 1e6, 2),
            "energy_kept": facts.get("energy_kept", ""), "energy_unseen": facts.get("energy_unseen", "")}


def with_unseen(source: Path, rows: Path) -> np.ndarray:
    """Which test rows have a token that no training row has, bool [N]."""
    tokenizer, splits = task.load_tokenizer(source), data.load(rows)
    train, test = (task.inputs(tokenizer, split, _LENGTH).ids for split in (splits.train, splits.test))
    seen = {index for ids in train for index in ids}
    return np.array([not seen.issuperset(ids) for ids in test])


if __name__ == "__main__":
    main()
