"""The time to the first answer, with fresh interpreters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trimtune.measure import _first_answer, loading
from trimtune.records import Artifact

OPENING = {"engine": "token_votes", "task": "text_classification", "max_length": 32, "threads": 1, "reading": {}}


@pytest.mark.slow
def test_a_fresh_process_takes_longer_than_loading_again(runnable: Callable[..., Artifact]) -> None:
    folder = runnable("quick", row_ms=50).folder
    taken = _first_answer.timed({"folder": folder, **OPENING}, "refund my card please", 100.0)
    found = loading.summarize([taken], loading.Config())
    first, again = found["load_ms"].value, found["load_again_ms"].value
    assert first is not None
    assert again is not None
    assert 50 < again < first, "the libraries are there by then"


@pytest.mark.slow
def test_a_language_model_is_timed_to_its_first_token(stories: Path) -> None:
    opening = {**OPENING, "folder": stories, "engine": "plain_decoder", "task": "causal_lm"}
    taken = _first_answer.timed(opening, "Once upon", 100.0)
    assert 0 < taken["again"] < taken["first"]


def test_what_a_fresh_process_cannot_load_has_a_cause_and_no_figure(tmp_path: Path) -> None:
    taken = _first_answer.timed({**OPENING, "folder": tmp_path, "engine": "none_such"}, "refund", 100.0)
    found = loading.summarize([taken], loading.Config())
    assert found["load_ms"].value is None
    assert found["load_again_ms"].value is None
    assert found["load_ms"].note.startswith("a fresh process can't load it: ")


def test_a_start_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    taken = _first_answer.timed({"folder": tmp_path, **OPENING}, "refund", 0.01)
    assert taken == {"lacking": "no answer within 0.01 s"}


def test_it_is_taken_where_a_limit_asks_for_it() -> None:
    from trimtune.study import read

    study = {"name": "mail", "data": "helpdesk", "tune": ["head"], "trim": ["none"], "engine": ["torch_eager"]}
    asked = read.resolve({**study, "require": {"load_ms": "<= 5000"}}, "study", Path())
    usual = read.resolve({**study, "require": {"size_mb": "<= 30"}}, "study", Path())
    assert (loading.settings(asked), loading.settings(usual)) == ({"fresh": True}, {})
    found = loading.summarize([loading.sample(None, loading.Config())], loading.Config())  # type: ignore[arg-type]
    assert (found["load_ms"].value, found["load_ms"].note) == (None, "read only where the study's require names it")
