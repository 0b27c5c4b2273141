"""What answers must look like: what a format takes, and that a bad one is refused with its line before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.study.faults import fault

from trimtune.records import AnswerFormat
from trimtune.study import read
from trimtune.study.answer_format import matcher

HEAD = "name: mail\ntask: causal-lm\ndata:\n  train: train.csv\n"
PERSON = {"type": "object", "required": ["name"], "additionalProperties": False,
          "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/years"}}, "$defs": {"years": {"type": "integer"}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.csv").write_text("prompt,completion\n" + "".join(f"q{row},a{row}\n" for row in range(12)))
    (tmp_path / "person.json").write_text(json.dumps(PERSON))
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "broken.json").write_text('{"type": ')
    return tmp_path


def study(folder: Path, more: str) -> Any:
    (folder / "study.yaml").write_text(HEAD + more)
    return read.read(folder / "study.yaml")


@pytest.mark.parametrize(("answer", "valid"), [
    ('{"name": "Ann"}', True), ('{"name": "Ann", "age": 7}', True), ('{"name": "Ann", "age": "7"}', False), ('{"age": 7}', False),
    ('{"name": "Ann"} yes', False), ("Ann", False), ("", False), ('{"name": "Ann", "age": NaN}', False), ("[" * 100_000, False)])
def test_json_by_a_schema_in_a_file(folder: Path, answer: str, valid: bool) -> None:
    form = study(folder, "  format: {json_schema: person.json}\n").data.format
    assert form == AnswerFormat(json_schema=PERSON), "the schema is kept, not where it lies"
    assert matcher(form)(answer) is valid


def test_a_schema_in_the_study_and_a_regular_expression(folder: Path) -> None:
    inline = study(folder, "  format:\n    json_schema: {type: array, items: {enum: [a, b]}}\n").data.format
    assert [matcher(inline)(answer) for answer in ('["a", "b"]', '["c"]')] == [True, False]
    whole = study(folder, "  format: {regex: '[0-9]+ eggs?'}\n").data.format
    assert [matcher(whole)(answer) for answer in ("7 eggs", "about 7 eggs", "7 eggs.")] == [True, False, False]


def test_a_resolved_format_is_read_again_as_it_is(folder: Path) -> None:
    from trimtune.study import language

    assert language.read(study(folder, "  format: {json_schema: person.json}\n").data, 0).facts.kind == "pairs"


CASES = {
    "no expression": ("  format:\n    regex: '(a'\n",
                      ("study.yaml:6: data.format.regex", "'(a'", "regular expression", "Python")),
    "both": ("  format: {regex: a, json_schema: person.json}\n", ("study.yaml:5: data.format", "both", "either")),
    "neither": ("  format: {}\n", ("study.yaml:5: data.format", "nothing", "regex")),
    "a text": ("  format: '[0-9]+'\n", ("study.yaml:5: data.format", "text", "a mapping")),
    "unknown key": ("  format: {regexp: a}\n", ("study.yaml:5: data.format.regexp", "Did you mean 'regex'?")),
    "no such file": ("  format:\n    json_schema: nobody.json\n", ("study.yaml:6: data.format.json_schema", "nobody.json")),
    "no JSON": ("  format: {json_schema: broken.json}\n",
                ("study.yaml:5: data.format.json_schema", "broken.json", "no JSON")),
    "a list": ("  format: {json_schema: list.json}\n", ("study.yaml:5: data.format.json_schema", "list.json", "a list")),
    "no schema": ("  format: {json_schema: {type: strin}}\n",
                  ("study.yaml:5: data.format.json_schema", "'strin'", "json-schema.org")),
    "a bad pattern inside": ("  format: {json_schema: {pattern: '('}}\n", ("study.yaml:5: data.format.json_schema", "'('")),
    "a network's schema": ("  format: {json_schema: {$ref: 'http://example.org/a'}}\n",
                           ("study.yaml:5: data.format.json_schema", "example.org", "inside it")),
    "a lost reference": ("  format: {json_schema: {$ref: '#/$defs/a'}}\n",
                         ("study.yaml:5: data.format.json_schema", "#/$defs/a", "doesn't hold")),
    "limit without format": ("require: {format_valid: '>= 0.9'}\n",
                             ("study.yaml:5: require.format_valid", "no data.format", "Add")),
    "general text that isn't there": ("  general: prose.txt\n", ("study.yaml:5: data.general", "prose.txt", ".txt")),
    "general text of another kind": ("  general: person.json\n", ("study.yaml:5: data.general", "'.json'", ".md")),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_refused_is_said_with_its_line(folder: Path, case: str) -> None:
    more, named = CASES[case]
    fault(lambda: study(folder, more), *named)


def test_labels_have_no_format(folder: Path) -> None:
    from trimtune.records import DataSpec
    from trimtune.study import data

    fault(lambda: data.read(DataSpec(train="helpdesk", format=AnswerFormat(regex="a")), 0), "data.format", "rows with labels")
