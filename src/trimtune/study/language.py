"""Rows for a language model: plain texts, prompts with their completions, or conversations. Which it is, is found by looking.

However it was written, a row is a tuple of turns. A plain text is one turn of the role `text`, a pair is `user` and
`assistant`, a conversation is what it is: an optional `system`, then `user` and `assistant` by turns, an answer last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice
from pathlib import Path
from typing import Any, NamedTuple

from trimtune.errors import TrimtuneError
from trimtune.records import DataSpec
from trimtune.results import DataFacts
from trimtune.store import key_of
from trimtune.study import formats, general, kept, sources, splits, turns
from trimtune.study.document import Place
from trimtune.study.sources import SPLITS
from trimtune.study.table import SAMPLE, Table
from trimtune.study.turns import Row, Turn


@dataclass(frozen=True)
class Split:
    """Row `rows[i]` stood in row (of JSON Lines: line) `numbers[i]` of its file."""

    rows: list[Row]
    numbers: list[int]

    def __len__(self) -> int:
        return len(self.rows)


Rows = kept.Rows[Split]


class _Read(NamedTuple):
    split: Split
    table: Table


def read(spec: DataSpec, seed: int) -> Rows:
    """The rows of a data spec. Relative paths are taken from the current folder.

    A validation or test split that isn't given is split off the training rows (15%); rows with the same prompt stay together.

    Raises:
        TrimtuneError: with file and row number.
    """
    sources.refuse(spec, ("label",), "rows for a language model")
    spec = sources.read(spec.model_dump(exclude_none=True), Path.cwd(), Place("", path=("data",)))
    if spec.general:
        general.read(Path(spec.general))  # so that one without words is refused before anything is tuned
    tables = sources.opened(spec)
    train = tables.pop("train")
    sample = list(islice(train.rows, SAMPLE))
    found = formats.choose(train.name, train.columns, [cells for _, _, cells in sample], spec)
    made = {"train": _read(train, chain(sample, train.rows), found),
            **{name: _read(table, table.rows, found) for name, table in tables.items()}}
    done, origin, notes = _split(made, seed)
    notes = [*found.notes, *(note for one in made.values() for note in one.table.notes), *notes, *_findings(done)]
    facts = DataFacts(labels=(), rows={name: len(split) for name, split in done.items()}, text=found.columns[0],
                      label="".join(found.columns[1:]), notes=tuple(notes), sources=origin, kind=found.kind)
    return Rows(done["train"], done["validation"], done["test"], facts)


def content(rows: Rows) -> dict[str, Any]:
    """What the rows say and where they stood, for the key of the step that keeps both."""
    splits = {name: [getattr(rows, name).rows, getattr(rows, name).numbers] for name in SPLITS}
    return {"kind": rows.facts.kind, "content": key_of(**splits)}


def summary(rows: Rows) -> dict[str, Any]:
    """The facts of that step."""
    return {"rows": rows.facts.rows, "kind": rows.facts.kind}


def save(rows: Rows, folder: Path) -> None:
    """Keep them in a folder, one {"row", "turns"} per line."""
    kept.save(rows, folder, lambda split: ({"row": number, "turns": [list(turn) for turn in row]}
                                           for row, number in zip(split.rows, split.numbers, strict=True)))


def load(folder: Path) -> Rows:
    """What `save` wrote."""
    return kept.load(folder, lambda lines, _: Split([tuple(Turn(*turn) for turn in line["turns"]) for line in lines],
                                                    [line["row"] for line in lines]))


def prompt(row: Row) -> tuple[Turn, ...]:
    """All before the last answer; a plain text has none."""
    return row[:-1]


def _read(table: Table, rows: Iterable[tuple[int, int, Sequence[Any]]], found: formats.Format) -> _Read:
    lacking = [column for column in found.columns if column not in table.columns]
    if lacking:
        raise TrimtuneError(f"{table.name}: there is no column '{lacking[0]}'.",
                            f"Its columns: {', '.join(table.columns)}. All splits need the same columns.",
                            "Rename its column, or leave the split out: it is then split off the training rows.")
    at = [table.columns.index(column) for column in found.columns]
    split = Split([], [])
    for number, line, cells in rows:
        split.rows.append(turns.of([cells[index] for index in at], found.columns, found.kind, table.at(number, line)))
        split.numbers.append(number)
    return _Read(split, table)


def _split(made: dict[str, _Read], seed: int) -> tuple[dict[str, Split], dict[str, str], list[str]]:
    """All three splits, where each is from, and notes on what was split off."""
    origin = {name: one.table.name.rsplit("/", 1)[-1] for name, one in made.items()}
    done, notes = {name: one.split for name, one in made.items()}, []
    wanted = [name for name in SPLITS if name not in made]
    train = done["train"]
    if wanted:
        if len(train) <= len(wanted):
            raise TrimtuneError(f"{made['train'].table.name}: {len(train)} row{'' if len(train) == 1 else 's'} to learn from.",
                                f"There must be at least {1 + len(wanted)}, since {' and '.join(wanted)} are lacking too.",
                                "Add rows, or give files for the other splits.")
        alike = [_key(prompt(row) or row) for row in train.rows]
        for name, rows in splits.split_off(alike, [""] * len(train), wanted, seed).items():
            done[name] = Split([train.rows[row] for row in rows], [train.numbers[row] for row in rows])
            if name != "train":
                origin[name] = f"split off {origin['train']}"
                notes.append(f"{name}: {len(rows)} rows split off {origin['train']} ({splits.SHARE:.0%}, seed {seed}), "
                             "since there is no such split")
    return {name: done[name] for name in SPLITS}, origin, notes


def _key(row: Iterable[Turn]) -> str:
    return "\0".join(splits.same(turn.content) for turn in row)


def _findings(done: dict[str, Split]) -> list[str]:
    """Repeated rows, and prompts or texts of one split that stand in another; nothing is removed."""
    notes = []
    whole = {name: [_key(row) for row in split.rows] for name, split in done.items()}
    asked = {name: [_key(prompt(row) or row) for row in split.rows] for name, split in done.items()}
    for name, found in whole.items():
        repeats = len(found) - len(Counter(found))
        if repeats:
            notes.append(f"{name}: {repeats} row{' repeats' if repeats == 1 else 's repeat'} another (kept)")
    for one, other in combinations(done, 2):
        known = set(asked[one])
        shared = sum(key in known for key in asked[other])
        if shared:
            notes.append(f"{shared} of {len(asked[other])} {other} rows ask what a {one} row asks (kept): scores on them are "
                         "too good")
    return notes
