from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from trimtune import parts
from trimtune.study.schema import schema

FINE: list[dict[str, Any]] = [
    {"name": "mail", "data": "helpdesk"},
    {"name": "mail", "data": "helpdesk", "smaller": "sentence-transformers/paraphrase-MiniLM-L3-v2"},
    {"name": "mail", "data": {"train": "a.csv", "label": "y"}, "tune": ["lora", {"lora": {"r": 4}}, {"full": None}],
     "trim": ["none", ["prune_ffn", "int8"], {"prune_ffn": {"ratio": 0.5}}], "engine": ["torch-eager"],
     "require": {"size_mb": "<= 3", "accuracy": [">= parent - 0.01 surely", ">=.8"], "perplexity": "≤ parent + 2%"}}]
BAD: list[dict[str, Any]] = [
    {"name": "mail"}, {"data": "helpdesk"}, {"tunes": []}, {"tune": []}, {"tune": ["lorra"]}, {"tune": [{"lora": {"rank": 3}}]},
    {"tune": [{"lora": {"r": 0}}]}, {"trim": [["none"]]}, {"engine": ["tpu"]}, {"require": {"size": "<= 3"}},
    {"require": {"size_mb": "3"}}, {"require": {"accuracy": ">= parent - x"}},
    {"prefer": "speed"}, {"smaller": ["minilm"]}, {"seed": -1}, {"fit": {"epochs": 0}}]


def test_it_is_a_schema_and_lists_every_part() -> None:
    found = schema()
    Draft202012Validator.check_schema(found)
    for kind in ("method", "trim", "engine"):
        assert {f"{kind}.{name}" for name in parts.names(kind)} <= set(found["$defs"])


@pytest.mark.parametrize("study", FINE)
def test_what_the_reader_takes(study: dict[str, Any]) -> None:
    Draft202012Validator(schema()).validate(study)


@pytest.mark.parametrize("change", BAD, ids=str)
def test_what_the_reader_refuses(change: dict[str, Any]) -> None:
    study = change if set(change) <= {"name", "data"} else {**FINE[0], **change}
    assert not Draft202012Validator(schema()).is_valid(study)
