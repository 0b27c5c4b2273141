"""The study that is drafted for a data file: what is seen is in it, and the reader takes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.study.faults import fault

from trimtune.records import Study
from trimtune.study import read
from trimtune.study.init import draft, free_name, look

ROWS = "".join(f"line {n} of {label},{label}\n" for n in range(6) for label in ("ham", "spam"))
MORE = "".join(f"more {n} of {label},{label}\n" for n in range(6) for label in ("ham", "spam"))


def drafted(path: Path, folder: Path) -> tuple[str, Study]:
    text = draft(path, folder)
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return text, read.read(folder / "study.yaml")


@pytest.mark.parametrize(("train", "validation", "test"), [
    ("train.csv", "val.csv", "test.csv"), ("train.csv", "dev.tsv", None), ("Training.CSV", "validation.csv", "testing.csv"),
    ("mail_train.csv", "mail_valid.csv", "mail_test.csv"), ("trainset.csv", "devset.csv", "testset.csv"),
    ("rows.csv", None, None)])
def test_the_other_splits_are_found(train: str, validation: str | None, test: str | None, tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    for name, rows in ((train, ROWS), (validation, MORE), (test, MORE.replace("more", "other"))):
        if name:
            (tmp_path / "mail" / name).write_text("body,intent\n" + (rows.replace(",", "\t") if name.endswith("tsv") else rows))
    if validation and validation.endswith("tsv"):
        (tmp_path / "mail" / validation).write_text("body\tintent\n" + MORE.replace(",", "\t"))
    text, study = drafted(tmp_path / "mail" / train, tmp_path)
    assert [Path(name).name if name else None for name in (study.data.train, study.data.validation, study.data.test)] == \
        [train, validation, test]
    assert (study.data.text, study.data.label) == ("body", "intent")
    assert study.name == ("rows" if train == "rows.csv" else "mail")
    assert f"train: mail/{train}\n" in text
    assert "# 2 labels: ham, spam" in text


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    for name, rows in (("train.csv", ROWS), ("dev.csv", MORE), ("notes.csv", "")):
        (tmp_path / "mail" / name).write_text("text,label\n" + rows)
    _, study = drafted(tmp_path / "mail", tmp_path)
    assert (study.data.validation, study.data.test) == (str(tmp_path / "mail" / "dev.csv"), None)
    fault(lambda: draft(tmp_path), str(tmp_path), "no training file")
    (tmp_path / "mail" / "train.tsv").write_text("text\tlabel\n")
    fault(lambda: draft(tmp_path / "mail"), "several training files", "train.csv, train.tsv")


def test_a_test_file_without_labels_is_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + ROWS)
    (tmp_path / "test.csv").write_text("text\nsomething\n")
    text, study = drafted(tmp_path / "train.csv", tmp_path)
    assert study.data.test is None
    assert "# test: test.csv is left out" in text


def test_a_bundled_set() -> None:
    assert "  train: helpdesk\n" in draft(Path("helpdesk"))


@pytest.mark.parametrize("name", ["a: b", "#c", "- d", "é ü", "{e}", "no", "null", "tab\there", "quote \" '", "1.5", "[x",
                                  "line\u2028", "\x1b[0m"])
def test_odd_names_of_columns_and_labels(name: str, tmp_path: Path) -> None:
    cell = '"' + name.replace('"', '""') + '"'
    (tmp_path / "my rows é.csv").write_text(f"{cell},label\n" + ROWS.replace(",ham", f",{cell}"), encoding="utf-8")
    _, study = drafted(tmp_path / "my rows é.csv", tmp_path)
    assert (study.data.text, study.data.label) == (name.strip(), "label")


@pytest.mark.parametrize(("source", "name"), [
    ("owner/mail:config", "mail"), ("mail.csv", "mail"), ("mail_train.csv", "mail"), ("a b/our mail!.csv", "our-mail"),
    ("2024.csv", "study-2024"), ("!.csv", "study")])
def test_names(source: str, name: str) -> None:
    assert free_name(source) == name


def test_every_part_that_it_names_can_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + ROWS)
    text = draft(tmp_path / "train.csv", tmp_path)
    known = {word: re.search(rf"Known: (.*)\n{word}:", text) for word in ("tune", "trim")}
    for word, found in known.items():
        assert found
        text = re.sub(rf"\n{word}: \[.*\]", f"\n{word}: [{found[1]}]", text)
    (tmp_path / "study.yaml").write_text(text.replace("# engine: [", "engine: ["), encoding="utf-8")
    study = read.read(tmp_path / "study.yaml")
    assert len(study.tune) > 5
    assert len(study.engine) > 2


TALK = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'


@pytest.mark.parametrize(("name", "rows", "keys"), [
    ("a.csv", ["prompt,completion", *(f"a{n},b{n}" for n in range(9))], {"prompt": "prompt", "completion": "completion"}),
    ("a.csv", ["body", *(f"a text {n}" for n in range(9))], {"text": "body"}),
    ("a.jsonl", [TALK.replace('"a"', f'"a{n}"') for n in range(9)], {"messages": "messages"})])
def test_rows_of_a_language_model_are_seen(name: str, rows: list[str], keys: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    text, study = drafted(tmp_path / name, tmp_path)
    assert study.task == "causal_lm"
    assert {key: getattr(study.data, key) for key in keys} == keys
    assert "head" not in text.replace("prune_heads", ""), "a method for labels alone"
    assert "minilm" not in text


def test_two_columns_that_may_be_a_label_are_asked_about(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("body,kindd\n" + "".join(f"a text {n},b{n}\n" for n in range(9)), encoding="utf-8")
    fault(lambda: draft(tmp_path / "a.csv"), "no column looks like a label", "--task causal-lm")
    _, facts = look(str(tmp_path / "a.csv"), task="causal_lm")
    assert (facts.kind, facts.text) == ("text", "body")
