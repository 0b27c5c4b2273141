"""Rows for a language model: the format is found, every fault is told with its row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.study.faults import fault

from trimtune.records import DataSpec
from trimtune.study import language
from trimtune.study.language import Rows
from trimtune.study.turns import Turn

PAIRS = "prompt,completion\n" + "".join(f"what is {number}?,it is {number}\n" for number in range(12))


def chat(*roles: str, key: tuple[str, str] = ("role", "content")) -> list[dict[str, str]]:
    return [{key[0]: role, key[1]: f"{role} speaks"} for role in roles]


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


GOOD = jsonl(*({"messages": [{"role": "user", "content": f"say {number}"}, {"role": "assistant", "content": str(number)}]}
               for number in range(12)))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(name: str, content: str | bytes, **spec: Any) -> Rows:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return language.read(DataSpec(train=name, **spec), 0)


@pytest.mark.parametrize(("name", "content", "kind", "columns", "first"), [
    ("t.csv", PAIRS, "pairs", ("prompt", "completion"), (Turn("user", "what is 0?"), Turn("assistant", "it is 0"))),
    ("t.csv", PAIRS.replace("prompt,completion", "mr,ref"), "pairs", ("mr", "ref"), None),
    ("t.csv", PAIRS.replace("prompt,completion", "from here,to there"), "pairs", ("from here", "to there"), None),
    ("t.jsonl", jsonl(*({"question": f"1 + {n}", "answer": n + 1} for n in range(5))), "pairs", ("question", "answer"),
     (Turn("user", "1 + 0"), Turn("assistant", "1"))),
    ("t.csv", "text\n" + "".join(f"story {n}\n" for n in range(5)), "text", ("text", ""), (Turn("text", "story 0"),)),
    ("t.csv", "n,lines\n" + "".join(f"{n},story {n}\n" for n in range(5)), "text", ("lines", ""), (Turn("text", "story 0"),)),
    ("t.jsonl", GOOD, "chat", ("messages", ""), (Turn("user", "say 0"), Turn("assistant", "0"))),
    ("t.jsonl", jsonl(*({"conversations": [{"from": "system", "value": "be brief"}, {"from": "human", "value": f"say {n}"},
                                           {"from": "gpt", "value": "so"}]} for n in range(5))), "chat", ("conversations", ""),
     (Turn("system", "be brief"), Turn("user", "say 0"), Turn("assistant", "so"))),
    ("t.csv", "id,talk\n" + "".join(f'{n},"{json.dumps(chat("user", "assistant")).replace(chr(34), chr(34) * 2)}"\n'
                                    for n in range(5)), "chat", ("talk", ""), (Turn("user", "user speaks"),
                                                                               Turn("assistant", "assistant speaks"))),
    ("t.jsonl", jsonl(*({"messages": [{"role": "user", "content": [{"type": "text", "text": f"say {n}"}]},
                                      {"role": "assistant", "content": "so"}]} for n in range(5))), "chat", ("messages", ""),
     (Turn("user", "say 0"), Turn("assistant", "so"))),
])
def test_the_format_is_found(name: str, content: str, kind: str, columns: tuple[str, str], first: Any) -> None:
    rows = read(name, content)
    assert (rows.facts.kind, (rows.facts.text, rows.facts.label)) == (kind, columns)
    assert any(kind in note for note in rows.facts.notes), "what was found by looking is said"
    every = [row for split in (rows.train, rows.validation, rows.test) for row in split.rows]
    assert len(every) == sum(rows.facts.rows.values())
    assert first is None or first in every


@pytest.mark.parametrize(("spec", "kind"), [({"text": "prompt"}, "text"),
                                            ({"prompt": "completion", "completion": "prompt"}, "pairs")])
def test_the_study_may_name_the_columns(spec: dict[str, str], kind: str) -> None:
    rows = read("t.csv", PAIRS, **spec)
    assert rows.facts.kind == kind
    assert rows.facts.text == next(iter(spec.values()))


def test_splits_keep_a_prompt_together_and_row_numbers_lead_back() -> None:
    twice = "prompt,completion\n" + "".join(f"ask {n // 2},answer {n}\n" for n in range(40))
    rows = read("t.csv", twice)
    prompts = [{row[0].content for row in split.rows} for split in (rows.train, rows.validation, rows.test)]
    assert not prompts[0] & prompts[1]
    assert not prompts[0] & prompts[2]
    lines = twice.splitlines()
    for split in (rows.train, rows.validation, rows.test):
        assert split.rows
        for row, number in zip(split.rows, split.numbers, strict=True):
            assert lines[number - 1] == f"{row[0].content},{row[1].content}"


def test_what_is_saved_is_what_was_read(tmp_path: Path) -> None:
    rows = read("t.jsonl", GOOD)
    language.save(rows, tmp_path / "kept")
    assert language.load(tmp_path / "kept") == rows
    assert language.content(rows) == language.content(language.load(tmp_path / "kept"))
    elsewhere = read("t.jsonl", "\n" + GOOD)
    assert elsewhere.train.rows == rows.train.rows
    assert language.content(elsewhere) != language.content(rows), "a message that names a row must name the file's"


def test_repeats_and_leaks_are_said() -> None:
    Path("v.csv").write_text("prompt,completion\nwhat is 3?,three\nnew,new\n", encoding="utf-8")
    notes = read("t.csv", PAIRS + "what is 3?,it is 3\n", validation="v.csv").facts.notes
    assert "train: 1 row repeats another (kept)" in notes
    assert any(note.startswith("1 of 2 validation rows ask what a train row asks") for note in notes)


U, A, S = "user", "assistant", "system"
BAD: dict[str, tuple[str, str | bytes, dict[str, str], tuple[str, ...]]] = {
    # the file and its columns
    "latin-1": ("t.csv", (PAIRS + "schön,ja\n").encode("latin-1"), {}, ("t.csv: row 14", "UTF-8", "0xf6")),
    "empty": ("t.csv", "", {}, ("t.csv", "empty")),
    "no such column": ("t.csv", PAIRS, {"text": "promt"}, ("no column 'promt'", "Did you mean 'prompt'")),
    "half a pair": ("t.csv", PAIRS, {"prompt": "prompt"}, ("prompt is given", "Name the other column too")),
    "too many columns": ("t.csv", PAIRS, {"text": "prompt", "completion": "completion"}, ("text and completion are given",)),
    "one column twice": ("t.csv", PAIRS, {"prompt": "prompt", "completion": "prompt"}, ("'prompt' is given as prompt and as",)),
    "a label": ("t.csv", PAIRS, {"label": "completion"}, ("data.label", "language model")),
    "three columns of words": ("t.csv", "a,b,c\nx,y,z\nu,v,w\n", {},
                               ("several columns could be the text (a, b, c)", "data: {train")),
    "no words": ("t.csv", "a,b\n1,2\n3,4\n", {}, ("no columns could be the text", "Its columns: a, b")),
    "too few rows to split": ("t.csv", "prompt,completion\na,b\nc,d\n", {}, ("2 rows to learn from", "at least 3", "Add rows")),
    "no such template": ("t.csv", PAIRS, {"template": "no.jinja"}, ("data.template", "no such file", "no.jinja")),
    # cells
    "empty prompt": ("t.csv", PAIRS + " ,so\n", {}, ("t.csv: row 14", "column 'prompt' is empty", "remove the row")),
    "empty completion": ("t.csv", PAIRS + "what?,\n", {}, ("t.csv: row 14", "column 'completion' is empty")),
    "empty text": ("t.jsonl", jsonl({"text": "a"}, {"text": ""}), {}, ("t.jsonl: line 2", "column 'text' is empty")),
    "a missing completion": ("t.jsonl", jsonl({"prompt": "a", "completion": "b"}, {"prompt": "a"}), {},
                             ("t.jsonl: line 2", "empty")),
    "a list as completion": ("t.jsonl", jsonl({"prompt": "a", "completion": ["b"]}), {}, ("t.jsonl: line 1", "a list")),
    "true as completion": ("t.jsonl", jsonl({"prompt": "a", "completion": True}), {}, ("t.jsonl: line 1", "true or false")),
    "half a surrogate": ("t.jsonl", '{"prompt": "a", "completion": "\\ud83d"}\n', {}, ("t.jsonl: line 1", "surrogate")),
    # conversations
    "no list": ("t.jsonl", GOOD + jsonl({"messages": "hello"}), {}, ("t.jsonl: line 13", "no list of turns: 'hello'")),
    "broken list in a cell": ("t.csv", 'messages\n"[{""role"": "\n', {}, ("t.csv: row 2", "no list of turns")),
    "null": ("t.jsonl", GOOD + jsonl({"messages": None}), {}, ("t.jsonl: line 13", "is empty")),
    "no turn": ("t.jsonl", GOOD + jsonl({"messages": []}), {}, ("t.jsonl: line 13", "holds no turn")),
    "a turn of text": ("t.jsonl", GOOD + jsonl({"messages": ["hello"]}), {}, ("t.jsonl: line 13: turn 1 is text", "'hello'")),
    "other keys": ("t.jsonl", GOOD + jsonl({"messages": [{"speaker": "me", "text": "hi"}]}), {},
                   ("t.jsonl: line 13: turn 1 has the keys speaker, text", "role and content")),
    "an unknown role": ("t.jsonl", GOOD + jsonl({"messages": chat(U, "tool")}), {},
                        ("t.jsonl: line 13: turn 2 has the role 'tool'", "system, user and assistant")),
    "an empty turn": ("t.jsonl", GOOD + jsonl({"messages": [*chat(U), {"role": A, "content": " "}]}), {},
                      ("t.jsonl: line 13: turn 2: its content is empty",)),
    "an image": ("t.jsonl", GOOD + jsonl({"messages": [{"role": U, "content": [{"type": "image_url"}]}, *chat(A)]}), {},
                 ("t.jsonl: line 13: turn 1", "no text", "Leave images")),
    "system in the middle": ("t.jsonl", GOOD + jsonl({"messages": chat(U, S, A)}), {}, ("line 13", "turn 2 is the system's")),
    "an answer first": ("t.jsonl", GOOD + jsonl({"messages": chat(A, U, A)}), {}, ("line 13", "nobody has asked")),
    "an answer after the system": ("t.jsonl", GOOD + jsonl({"messages": chat(S, A)}), {},
                                   ("line 13: turn 2", "nobody has asked")),
    "twice the user": ("t.jsonl", GOOD + jsonl({"messages": chat(U, U, A)}), {},
                       ("line 13", "turns 1 and 2 are both the user's")),
    "no answer": ("t.jsonl", GOOD + jsonl({"messages": chat(U, A, U)}), {}, ("line 13", "the last turn is the user's")),
    "system alone": ("t.jsonl", GOOD + jsonl({"messages": chat(S)}), {}, ("line 13", "the last turn is the system's")),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_rows_are_refused_with_their_row(what: str) -> None:
    name, content, spec, named = BAD[what]
    fault(lambda: read(name, content, **spec), *named)


def test_a_validation_file_needs_the_same_columns() -> None:
    Path("v.csv").write_text("question,completion\na,b\n", encoding="utf-8")
    fault(lambda: read("t.csv", PAIRS, validation="v.csv"), "v.csv", "no column 'prompt'", "All splits need the same columns")
