"""Broken data files: each is refused with the file and the row that the user sees, what is allowed and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.study.faults import fault, says

from trimtune.errors import TrimtuneError
from trimtune.records import DataSpec
from trimtune.study import data

FINE = "text,label\n" + "".join(f"line {number} of {label},{label}\n" for number in range(6) for label in ("ham", "spam"))

TRAIN: dict[str, tuple[str, str | bytes, tuple[str, ...]]] = {
    # the file as a whole
    "empty": ("t.csv", "", ("t.csv", "empty")),
    "blank": ("t.csv", "\n \n\n", ("t.csv", "empty")),
    "only a byte order mark": ("t.csv", b"\xef\xbb\xbf", ("t.csv", "empty")),
    "header only": ("t.csv", "text,label\n", ("t.csv", "no row below the header", "row 1")),
    "header and blank rows": ("t.csv", "text,label\n,\n\n", ("t.csv", "no row below the header")),
    "latin-1": ("t.csv", (FINE + "schöner Tag,ham\n").encode("latin-1"), ("t.csv: row 14", "0xf6", "'schöner Tag,ham'", "iconv")),
    "latin-1 far down": ("t.csv", (FINE * 9000).encode() + b"\xff,ham\n", ("t.csv: row 117001", "0xff")),
    "cut inside a character": ("t.csv", (FINE + "schö").encode()[:-1], ("t.csv: row 14", "0xc3")),
    "utf-16": ("t.csv", FINE.encode("utf-16"), ("t.csv", "UTF-16", "Save it as UTF-8")),
    "utf-16 without mark": ("t.csv", FINE.encode("utf-16-le"), ("t.csv: line 1", "NUL")),
    "nul far down": ("t.csv", FINE * 500 + "a\0b,ham\n", ("t.csv: line 6501", "NUL")),
    "an Excel workbook": ("t.csv", b"PK\x03\x04" + bytes(100), ("t.csv", "Excel", "CSV UTF-8")),
    "gzip": ("t.csv", b"\x1f\x8b\x08\x00" + bytes(50), ("t.csv", "gzip", "gunzip")),
    "Parquet named CSV": ("t.csv", b"PAR1" + bytes(50), ("t.csv", "Parquet", ".parquet")),
    "unknown ending": ("t.xlsx", FINE, ("t.xlsx", "'.xlsx'", ".csv")),
    # rows
    "too many cells": ("t.csv", FINE + "well, no,ham\n", ("t.csv: row 14 has 3 cells, the header has 2", "double quotes")),
    "too few cells": ("t.csv", FINE + "well\n", ("t.csv: row 14 has 1 cells, the header has 2", "missing cells")),
    "ragged below a long cell": ("t.csv", 'text,label\n"two\nlines",ham\nwell\n', ("t.csv: row 3 (line 4) has 1 cells",)),
    "open quote": ("t.csv", FINE + '"never closed,ham\n' + FINE, ("t.csv: row 14: the double quotes don't pair up",)),
    "text after a quote": ("t.csv", FINE + '"so" he said,ham\n', ("t.csv: row 14: the double quotes", 'she said ""no""')),
    "empty text": ("t.csv", FINE + "  ,ham\n", ("t.csv: row 14", "text (column 'text') is empty", "remove the row")),
    "empty text below a blank row": ("t.csv", FINE + "\n,ham\n", ("t.csv: row 15", "is empty")),
    "empty label": ("t.csv", FINE + "well,\n", ("t.csv: row 14", "label (column 'label') is empty")),
    # columns
    "header twice": ("t.csv", "text,label,text\na,x,b\n", ("t.csv: row 1", "'text'", "twice")),
    "no header": ("t.csv", FINE.split("\n", 1)[1], ("t.csv", "row 1", "header row")),
    "one column": ("t.csv", "text\na\nb\n", ("t.csv", "no column looks like a label", "data: {train")),
    "only numbers": ("t.csv", "a,b\n1,2\n3,4\n", ("t.csv", "no column looks like text", "a, b")),
    "several labels": ("t.csv", "text,kind,group\n" + "well now,a,x\nnot now,b,y\n" * 3 + "go,a,x\n", ("several", "kind, group")),
    # classes
    "one class": ("t.csv", "text,label\na,ham\nb,ham\n", ("t.csv", "every row has the label 'ham'")),
    "class with one row": ("t.csv", FINE + "so what,eggs\n", ("t.csv: row 14", "'eggs' has 1 row", "at least 3", "split off")),
    "class with two rows": ("t.csv", FINE + "so what,eggs\nwell,eggs\n", ("t.csv: row 14", "'eggs' has 2 rows", "at least 3")),
    # JSON Lines
    "broken JSON": ("t.jsonl", '{"text": "a", "label": "x"}\n\n{"text": "a", \n', ("t.jsonl: line 3 is not JSON",)),
    "no object": ("t.jsonl", '{"text": "a", "label": "x"}\n["a", "x"]\n', ("t.jsonl: line 2", "list", "one object per line")),
    "one long list": ("t.jsonl", '[{"text": "a", "label": "x"}]\n', ("t.jsonl: line 1", "list", "one object per line")),
    "a list on many lines": ("t.jsonl", '[\n{"text": "a", "label": "x"}\n]\n',
                             ("t.jsonl: line 1 is not JSON", "one object per line")),
    "text a number": ("t.jsonl", '{"text": "a", "label": "x"}\n{"text": 7, "label": "x"}\n', ("t.jsonl: line 2", "int", "'7'")),
    "text missing": ("t.jsonl", '{"text": "a", "label": "x"}\n{"label": "x"}\n', ("t.jsonl: line 2", "text", "is empty")),
    "label a list": ("t.jsonl", '{"text": "a", "label": ["x"]}\n', ("t.jsonl: line 1", "label", "list")),
    "label a fraction": ("t.jsonl", '{"text": "a", "label": 0.5}\n', ("t.jsonl: line 1", "label", "float", "'0.5'")),
    "label null": ("t.jsonl", '{"text": "a", "label": null}\n', ("t.jsonl: line 1", "label", "is empty")),
    "half a surrogate": ("t.jsonl", '{"text": "a \\ud83d", "label": "x"}\n', ("t.jsonl: line 1", "surrogate")),
    "deep JSON": ("t.jsonl", "[" * 100_000 + "\n", ("t.jsonl: line 1",)),
    # Parquet
    "no Parquet": ("t.parquet", FINE, ("t.parquet", "Parquet file can't be read")),
    "Parquet cut off": ("t.parquet", b"PAR1" + bytes(40), ("t.parquet", "Parquet file can't be read")),
    "empty Parquet": ("t.parquet", b"", ("t.parquet", "Parquet")),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("fine.csv").write_text(FINE, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("case", TRAIN)
def test_training_rows(case: str, folder: Path) -> None:
    name, content, named = TRAIN[case]
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    fault(lambda: data.read(DataSpec(train=name), 0), *named)


OTHER: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown label": ("text,label\nso,ham\nwell,spamm\nno,spamm\n",
                      ("v.csv: row 3", "'spamm'", "2 such rows", "Did you mean 'spam'?")),
    "no label column": ("text,id\nso,1\n", ("v.csv", "no column 'label'", "text, id", "leave the split out")),
    "no text column": ("sentence,label\nso,ham\n", ("v.csv", "no column 'text'", "sentence, label")),
    "empty text": ("text,label\nso,ham\n,spam\n", ("v.csv: row 3", "is empty")),
    "ragged": ("text,label\nso,ham,1\n", ("v.csv: row 2 has 3 cells",)),
    "empty": ("", ("v.csv", "empty")),
}


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("case", OTHER)
def test_validation_and_test_rows(case: str, split: str, folder: Path) -> None:
    content, named = OTHER[case]
    Path("v.csv").write_text(content, encoding="utf-8")
    fault(lambda: data.read(DataSpec(train="fine.csv", **{split: "v.csv"}), 0), *named)


def test_names(folder: Path) -> None:
    Path("rows").mkdir()
    fault(lambda: data.read(DataSpec(train="fin.csv"), 0), "data.train", "fin.csv", "no such file", "Did you mean fine.csv")
    fault(lambda: data.read(DataSpec(train="rows"), 0), "data.train", "folder")
    fault(lambda: data.read(DataSpec(train=""), 0), "data.train")
    fault(lambda: data.read(DataSpec(train="a\0.csv"), 0), "data.train")
    fault(lambda: data.read(DataSpec(train="fine.csv", test="./fine.csv"), 0), "data.test", "fine.csv", "train too")
    fault(lambda: data.read(DataSpec(train="fine.csv", text="body"), 0), "fine.csv", "no column 'body'", "text, label")
    fault(lambda: data.read(DataSpec(train="fine.csv", label="lable"), 0), "fine.csv", "'lable'", "Did you mean 'label'?")
    fault(lambda: data.read(DataSpec(train="fine.csv", text="text", label="text"), 0), "fine.csv", "as text and as label")


def test_a_link_to_nowhere_and_a_file_that_cannot_be_read(folder: Path) -> None:
    Path("gone.csv").symlink_to("nowhere.csv")
    fault(lambda: data.read(DataSpec(train="gone.csv"), 0), "gone.csv", "no such file")


def test_the_hub_out_of_reach(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder))
    fault(lambda: data.read(DataSpec(train="nobody/nothing-at-all"), 0), "'nobody/nothing-at-all'", "hub", "network")


MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PIECES = st.sampled_from([b"text,label\n", b"text\tlabel\n", b"a;b\n", b"well,ham\n", b"so,spam\n", b"\n", b"\r\n", b"\r", b",",
                          b";", b"\t",
                          b'"', b'""', b"\0", b"\xff", b"\xc3\xbc", b"\xef\xbb\xbf", b" ", b"x", b"1",
                          b'{"text": "a", "label": 1}\n', b"{}\n",
                          b"[1]", b'{"text": "\\ud800", "label": true}\n', b"NaN\n", b"PK\x03\x04", b"9" * 5000])


@pytest.mark.slow
@MANY
@given(content=st.binary(max_size=80) | st.lists(PIECES, max_size=30).map(b"".join)
       | st.lists(st.sampled_from([b"well %d,ham\n", b"so %d,spam\n"]), min_size=6, max_size=30).map(
           lambda rows: b"text,label\n" + b"".join(row % index for index, row in enumerate(rows))),
       ending=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]))
def test_any_bytes_give_rows_or_an_error_in_words(content: bytes, ending: str, folder: Path) -> None:
    path = folder / f"any.{ending}"
    path.write_bytes(content)
    try:
        rows = data.read(DataSpec(train=str(path)), 0)
    except TrimtuneError as error:
        says(error, "any.")
    else:
        assert all(len(split) >= len(rows.facts.labels) > 1 for split in (rows.train, rows.validation, rows.test))
