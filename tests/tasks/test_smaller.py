"""The next smaller model of a study: the same study of it, or why it can't be raced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tasks import small_lm
from tests.tasks.small_minilm import first_layers

from trimtune.errors import TrimtuneError
from trimtune.store import Store
from trimtune.study import read
from trimtune.tasks._base import base_of
from trimtune.tasks._smaller import Rival, rival_of

pytestmark = pytest.mark.slow
LABELS = ("no", "yes")


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("runs")

    def make(smaller: Path | str, **more: Any) -> Rival:
        given = {"name": "s", "data": "helpdesk", "engine": ["torch_eager"], "smaller": str(smaller), **more}
        study, store = read.resolve(given, "study", home), Store(home)
        return rival_of(study, base_of(study, LABELS, store), LABELS, store)

    return make


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_layers(tmp_path_factory.mktemp("small") / "mini", 1)


def refused(raced: Any, *said: str, **given: Any) -> None:
    with pytest.raises(TrimtuneError) as error:
        raced(**given)
    assert str(error.value).startswith("smaller: ")
    for one in said:
        assert one in str(error.value)
    assert error.value.allowed and error.value.do


def test_it_is_the_same_study_of_another_model_without_trims(raced: Any, small: Path) -> None:
    found = raced(small, tune=["full", "head"], trim=["none", "int8"], skip=["*+int8@*"])
    assert [candidate.name for candidate in found.candidates] == ["mini:full@torch_eager", "mini:head@torch_eager"]
    assert found.base.facts["parameters"] < 14_000_000
    assert (found.study.model, found.study.smaller, found.study.trim) == (str(small), None, ((),))
    assert [chain.name for chain in raced(small, tune=["full", "head"], skip=["head@*"]).candidates] == ["mini:full@torch_eager"]


def test_without_one_there_is_none(tmp_path: Path) -> None:
    study = read.resolve({"name": "s", "data": "helpdesk", "engine": ["torch_eager"]}, "study", tmp_path)
    store = Store(tmp_path)
    assert rival_of(study, base_of(study, LABELS, store), LABELS, store).candidates == []


def test_one_that_is_not_smaller_is_refused_with_both_sizes(raced: Any, small: Path) -> None:
    refused(raced, "minilm has 22,", "parameters, the study's model 1", smaller="minilm", model=str(small))


def test_one_of_another_task_is_refused(raced: Any, small: Path, tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    ViTModel(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((small / "tokenizer.json").read_bytes())
    refused(raced, "can't be used for text classification", smaller=tmp_path)


def test_one_that_is_not_there_or_not_whole_is_refused(raced: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    refused(raced, "has no model.safetensors", smaller=tmp_path)
    with pytest.raises(TrimtuneError, match=r"smaller.*'\./nowhere' is no folder"):
        raced("./nowhere")
    with pytest.raises(TrimtuneError, match="smaller.*the study's model itself"):
        raced("minilm")


def test_a_language_model_must_have_the_same_tokenizer(raced: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    own, other, alike = (tmp_path / name for name in ("own", "other", "alike"))
    small_lm.make(own)
    small_lm.make(other, vocabulary=400)
    AutoModelForCausalLM.from_pretrained(own, num_hidden_layers=1).save_pretrained(alike)
    AutoTokenizer.from_pretrained(own).save_pretrained(alike)
    asked = {"task": "causal-lm", "model": str(own), "tune": ["full"]}
    refused(raced, "another tokenizer", smaller=other, **asked)
    assert [candidate.name for candidate in raced(alike, **asked).candidates] == ["alike:full@torch_eager"]
    tokenizer = AutoTokenizer.from_pretrained(alike)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    tokenizer.save_pretrained(alike)
    refused(raced, "another chat template", smaller=alike, **asked)
