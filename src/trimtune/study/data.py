"""A study's rows: read, checked, split where the user gave no split, and kept as files for the steps that follow."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from trimtune.records import DataSpec
from trimtune.results import DataFacts
from trimtune.store import key_of
from trimtune.study import columns, findings, kept, sources, splits
from trimtune.study.document import Place
from trimtune.study.rows import Labelled, check_classes, check_known, rows_of
from trimtune.study.sources import SPLITS
from trimtune.study.table import SAMPLE


@dataclass(frozen=True)
class Split:
    """Rows: text `texts[i]` has the label with index `labels[i]` in `DataFacts.labels`."""

    texts: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.texts)


Rows = kept.Rows[Split]


def read(spec: DataSpec, seed: int) -> Rows:
    """The rows of a data spec. Relative paths are taken from the current folder.

    Labels become text and are sorted. A validation or test split that isn't given is split off the training rows (15% of
    each class). Repeated rows are kept and reported in `facts.notes`.

    Raises:
        TrimtuneError: with file and row number.
    """
    sources.refuse(spec, ("prompt", "completion", "messages", "template", "format", "general"), "rows with labels")
    spec = sources.read(spec.model_dump(), Path.cwd(), Place("", path=("data",)))
    found, text, label, notes = _found(spec)
    wanted = [name for name in SPLITS if name not in found]
    check_classes(found["train"], label, wanted)
    check_known({name: rows for name, rows in found.items() if name != "train"}, found["train"])
    plain: dict[str, findings.Labelled] = {name: (rows.texts, rows.labels) for name, rows in found.items()}
    origin = {name: rows.table.name.rsplit("/", 1)[-1] for name, rows in found.items()}
    if wanted:
        texts, labels = plain["train"]
        for name, rows in splits.split_off(texts, labels, wanted, seed).items():
            plain[name] = [texts[row] for row in rows], [labels[row] for row in rows]
            if name != "train":
                origin[name] = f"split off {origin['train']}"
                notes.append(f"{name}: {len(rows)} rows split off {origin['train']} ({splits.SHARE:.0%} of each class, "
                             f"seed {seed}), since there is no such split with labels")
    plain = {name: plain[name] for name in SPLITS}
    notes += [note for rows in found.values() for note in rows.table.notes] + findings.notes(plain)
    names = tuple(sorted(set(plain["train"][1])))
    index = {name: number for number, name in enumerate(names)}
    made = {name: Split(list(texts), [index[label] for label in labels]) for name, (texts, labels) in plain.items()}
    facts = DataFacts(labels=names, rows={name: len(split) for name, split in made.items()}, text=text, label=label,
                      notes=tuple(notes), sources=origin)
    return Rows(made["train"], made["validation"], made["test"], facts)


def content(rows: Rows) -> dict[str, Any]:
    """What the rows say, for the key of the step that keeps them."""
    splits_ = {name: [getattr(rows, name).texts, getattr(rows, name).labels] for name in SPLITS}
    return {"content": key_of(**splits_), "labels": list(rows.facts.labels)}


def summary(rows: Rows) -> dict[str, Any]:
    """The facts of that step."""
    return {"rows": rows.facts.rows, "labels": list(rows.facts.labels), "test_labels": rows.test.labels}


def save(rows: Rows, folder: Path) -> None:
    """Keep them in a folder, one {"text", "label"} per line."""
    kept.save(rows, folder, lambda split: ({"text": text, "label": rows.facts.labels[label]}
                                           for text, label in zip(split.texts, split.labels, strict=True)))


def load(folder: Path) -> Rows:
    """What `save` wrote."""
    return kept.load(folder, lambda lines, facts: Split([line["text"] for line in lines],
                                                        [facts.labels.index(line["label"]) for line in lines]))


def _found(spec: DataSpec) -> tuple[dict[str, Labelled], str, str, list[str]]:
    """The rows of each split that exists, the text and label columns, and notes on these."""
    tables = sources.opened(spec)
    train = tables.pop("train")
    sample = list(islice(train.rows, SAMPLE))
    text, label, notes = columns.choose(train.name, train.columns, [cells for _, _, cells in sample], spec.text, spec.label)
    found = {"train": rows_of(train, chain(sample, train.rows), text, label),
             **{name: rows_of(table, table.rows, text, label) for name, table in tables.items()}}
    return found, text, label, notes
