"""Rows that are right, in every format; columns found; splits made; findings told."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtune.records import DataSpec
from trimtune.study import data

ROWS = [(f"{word} line, number {number}", label) for number in range(10) for word, label in (("good", "ham"), ("bad", "spam"))]


def write(path: Path, rows: list[tuple[str, Any]], header: tuple[str, str] = ("text", "label"), **dialect: Any) -> str:
    with path.open("w", encoding=dialect.pop("encoding", "utf-8"), newline="") as file:
        csv.writer(file, **dialect).writerows([header, *rows])
    return str(path)


def texts(rows: data.Rows) -> list[tuple[str, str]]:
    return sorted((text, rows.facts.labels[label]) for split in (rows.train, rows.validation, rows.test)
                  for text, label in zip(split.texts, split.labels, strict=True))


@pytest.mark.parametrize("kind", ["csv", "CSV", "tsv", "semicolons", "mark", "crlf", "jsonl", "parquet"])
def test_every_format_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    path = tmp_path / {"semicolons": "t.csv", "mark": "t.csv", "crlf": "t.csv"}.get(kind, f"t.{kind}")
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"id": 1, "text": text, "label": label}) + "\n\n" for text, label in ROWS))
    elif kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}), path)
    else:
        options: dict[str, dict[str, Any]] = {"tsv": {"delimiter": "\t"}, "semicolons": {"delimiter": ";"},
                                              "mark": {"encoding": "utf-8-sig"},
                                              "crlf": {"lineterminator": "\r\n"}}
        write(path, ROWS, **{"lineterminator": "\n", **options.get(kind, {})})
    rows = data.read(DataSpec(train=str(path)), 0)
    assert texts(rows) == sorted(ROWS)
    assert (rows.facts.labels, rows.facts.text, rows.facts.label) == (("ham", "spam"), "text", "label")


def test_a_tsv_with_bare_quotes(tmp_path: Path) -> None:
    rows = [('"so" he said', "ham"), ('5" nails', "spam")] * 5
    (tmp_path / "t.tsv").write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    found = data.read(DataSpec(train=str(tmp_path / "t.tsv")), 0)
    assert texts(found) == sorted(rows)
    assert "t.tsv: double quotes are taken as part of the text" in found.facts.notes


@pytest.mark.parametrize(("values", "labels"), [
    ([0, 1, 10], ("0", "1", "10")), ([True, False], ("false", "true")), ([1.0, 2.0], ("1", "2")),
    ([" ham", "ham ", "spam"], ("ham", "spam"))])
def test_labels_become_text_and_are_sorted(values: list[Any], labels: tuple[str, ...], tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"line {index}", "label": values[index % len(values)]}) for index in range(12)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    assert data.read(DataSpec(train=str(tmp_path / "t.jsonl")), 0).facts.labels == labels


@pytest.mark.parametrize(("header", "found"), [
    (("utterance", "intent"), "its name"), (("Message Body", "ticketCategory"), "its name"), (("v2", "v1"), "looking")])
def test_columns_are_found(header: tuple[str, str], found: str, tmp_path: Path) -> None:
    facts = data.read(DataSpec(train=write(tmp_path / "t.csv", ROWS, header)), 0).facts
    assert (facts.text, facts.label) == header
    assert sum(f"found by {found}" in note for note in facts.notes) == 2


def test_the_study_decides_which_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label,mood,subject\n" + "".join(f"a {n},x,m{n % 2},the subject {n}\n" for n in range(12)))
    facts = data.read(DataSpec(train=str(path), text="subject", label="mood"), 0).facts
    assert (facts.text, facts.label, facts.labels) == ("subject", "mood", ("m0", "m1"))


def test_splits_are_made_with_the_seed_and_said(tmp_path: Path) -> None:
    rows = [(f"{label} {n}", label) for label, count in (("a", 100), ("b", 40), ("c", 3)) for n in range(count)]
    spec = DataSpec(train=write(tmp_path / "t.csv", rows))
    one, again, other = (data.read(spec, seed) for seed in (0, 0, 1))
    assert one == again
    assert one.test.texts != other.test.texts
    counts = {name: Counter(getattr(one, name).labels) for name in ("train", "validation", "test")}
    assert counts == {"train": {0: 70, 1: 28, 2: 1}, "validation": {0: 15, 1: 6, 2: 1}, "test": {0: 15, 1: 6, 2: 1}}
    assert texts(one) == sorted(rows)
    assert "test: 22 rows split off t.csv (15% of each class, seed 0)" in "\n".join(one.facts.notes)
    assert one.facts.rows == {"train": 99, "validation": 22, "test": 22}


def test_only_the_lacking_split_is_made(tmp_path: Path) -> None:
    rows = data.read(DataSpec(train=write(tmp_path / "t.csv", ROWS), test=write(tmp_path / "e.csv", [("new", "ham")])), 0)
    assert rows.facts.rows == {"train": 16, "validation": 4, "test": 1}
    assert rows.facts.sources == {"train": "t.csv", "validation": "split off t.csv", "test": "e.csv"}


def test_repeated_texts_stay_on_one_side_of_a_made_split(tmp_path: Path) -> None:
    rows = [(f"{label} {n}", label) for label in "ab" for n in range(10) for _ in range(3)]
    found = data.read(DataSpec(train=write(tmp_path / "t.csv", rows)), 0)
    sets = [set(split.texts) for split in (found.train, found.validation, found.test)]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert not [note for note in found.facts.notes if "too good" in note]


def test_findings_are_told_with_counts(tmp_path: Path) -> None:
    train = [*ROWS, ("Good  line, number 1", "ham"), ("so", "ham"), ("so", "spam"), *((f"odd {n}", "Ham") for n in range(3))]
    notes = data.read(DataSpec(train=write(tmp_path / "t.csv", train),
                               test=write(tmp_path / "e.csv", [*ROWS[:3], ("new", "spam")]),
                               validation=write(tmp_path / "v.csv", [("other", "ham"), ("others", "ham")])), 0).facts.notes
    for note in ("train: 2 rows repeat the text of another (kept)",
                 "3 of 4 test rows stand in train too (kept): scores on them are too good",
                 "1 text has more than one label (kept), such as 'so': ham and spam",
                 "labels that differ only in case count as different: Ham and ham",
                 "validation: no row of 2 classes (Ham, spam)"):
        assert note in notes


def test_a_huge_cell_and_a_blank_row(tmp_path: Path) -> None:
    rows = data.read(DataSpec(train=write(tmp_path / "t.csv", [*ROWS, ("", ""), ("x" * 3_000_000, "ham")])), 0)
    assert max(map(len, [*rows.train.texts, *rows.validation.texts, *rows.test.texts])) == 3_000_000
    assert "t.csv: 1 blank row skipped" in rows.facts.notes


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    odd = [("line\nbreak \u2028 \x85 \"é🙂\\", "ham"), ("\ttabs", "spam")]
    rows = data.read(DataSpec(train=write(tmp_path / "t.csv", [*ROWS, *odd])), 0)
    data.save(rows, tmp_path / "kept")
    assert data.load(tmp_path / "kept") == rows
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert names == {"facts.json", "test.jsonl", "train.jsonl", "validation.jsonl"}


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(TEXT, st.sampled_from(["x", "y, z", 'q "r"'])), max_size=20), seed=st.integers(0, 3))
def test_whatever_a_csv_writer_writes_is_read(rows: list[tuple[str, str]], seed: int, tmp_path: Path) -> None:
    rows = [*rows, *((f"{label} {n}", label) for label in ("x", "y, z", 'q "r"') for n in range(3))]
    found = data.read(DataSpec(train=write(tmp_path / "t.csv", rows)), seed)
    assert texts(found) == sorted(rows)
    data.save(found, tmp_path / "kept")
    assert data.load(tmp_path / "kept") == found


def test_the_bundled_set() -> None:
    rows = data.read(DataSpec(train="helpdesk"), 0)
    assert len(rows.facts.labels) == 12
    assert rows.facts.sources == {"train": "train.csv", "validation": "validation.csv", "test": "test.csv"}


@pytest.mark.parametrize(("name", "files", "labels", "counts"), [
    ("sst2", ("train", "dev", "test"), 2, (6920, 872, 1821)), ("clinc150", ("train", "val", "test"), 150, (15000, 3000, 4500))])
def test_public_sets(name: str, files: tuple[str, ...], labels: int, counts: tuple[int, ...], shared_data: Path) -> None:
    train, validation, test = (str(shared_data / name / f"{file}.csv") for file in files)
    facts = data.read(DataSpec(train=train, validation=validation, test=test), 0).facts
    assert (len(facts.labels), tuple(facts.rows.values())) == (labels, counts)


def test_quoted_cells_of_a_public_set(shared_data: Path) -> None:
    from trimtune.study.tables import open_table

    assert sum(1 for _ in open_table(shared_data / "e2e_nlg" / "trainset.csv").rows) == 42_061
