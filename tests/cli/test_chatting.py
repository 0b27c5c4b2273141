"""A conversation longer than the model can hold."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console
from tests.tasks import small_lm
from tests.tasks.test_causal_lm import CHATML

from trimtune.cli.chatting import _Talk
from trimtune.ship import generator
from trimtune.study.turns import Turn


def test_the_oldest_is_forgotten_and_a_prompt_that_is_too_long_is_said(tmp_path: Path) -> None:
    small_lm.make(tmp_path, "gpt2")
    reading = {"kind": "chat", "template": CHATML, "learned": "answers"}
    (tmp_path / "rendering.json").write_text(json.dumps(reading), encoding="utf-8")
    said = io.StringIO()
    talk = _Talk(generator.load(tmp_path), "Be brief.", 4, Console(file=said, width=200))
    talk.turns = [Turn("user", "what is it about"), Turn("assistant", "it is about this")] * 40
    assert talk.line("and then?")
    assert "The oldest question and its answer are forgotten" in said.getvalue()
    assert 0 < len(talk.turns) < 80
    assert talk.line("too long " * 400)
    assert "Shorten it" in said.getvalue()
    assert talk.line("and now?"), "the talk goes on"


def test_a_template_that_knows_no_system_is_said_and_the_talk_goes_on(tmp_path: Path) -> None:
    small_lm.make(tmp_path, "gpt2")
    picky = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML
    reading = {"kind": "chat", "template": picky, "learned": "answers"}
    (tmp_path / "rendering.json").write_text(json.dumps(reading), encoding="utf-8")
    said = io.StringIO()
    talk = _Talk(generator.load(tmp_path), "", 4, Console(file=said, width=200))
    assert talk.line("/system be brief")
    assert talk.line("hello")
    assert "no system here" in said.getvalue()
    assert talk.line("/system")
    assert talk.line("hello")
    assert said.getvalue().count("no system here") == 1
