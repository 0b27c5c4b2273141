"""Texts without labels: one per line, or a column of a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimtune.errors import TrimtuneError
from trimtune.study import unlabelled


@pytest.mark.parametrize(("name", "content"), [
    ("a.txt", "first text\n\n  second, text \n"),
    ("a.csv", 'id,message\n1,first text\n2,"second, text"\n'),
    ("one.csv", 'anything\nfirst text\n"second, text"\n'),
    ("a.jsonl", "\n".join(json.dumps({"number": 1, "sentence": text}) for text in ("first text", "second, text"))),
])
def test_the_texts_of_each_kind_of_file(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert unlabelled.read(tmp_path / name) == ["first text", "second, text"]


@pytest.mark.parametrize(("content", "message"), [
    ("a,b\n1,2\n3,4\n", "no column looks like text"),
    ("text,n\nfirst,1\n,2\n", "row 3: the text .* is empty"),
])
def test_what_is_no_text_is_told_with_its_place(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(TrimtuneError, match=message):
        unlabelled.read(tmp_path / "a.csv")
