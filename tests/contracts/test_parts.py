"""Every part that lies in a folder keeps the contract of its kind: to be found is to be tested."""

from __future__ import annotations

import inspect
import re
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from trimtune import parts
from trimtune.records import Quantity

PARTS = [(kind, name) for kind in parts.ROOMS for name in parts.names(kind)]
CHOSEN = [(kind, name) for kind, name in PARTS if kind not in ("task", "baseline")]
"""what has a Config that a study or a test may set"""
FUNCTIONS = {
    "baseline": {"fit": ["train", "validation", "classes", "base", "task", "max_length"]},
    "method": {"prepare": ["model", "config"]},
    "trim": {"run": ["folder", "source", "config", "setting"]},
    "engine": {"available": [], "export": ["folder", "source", "config", "numerics", "calibration", "max_length", "task"],
               "load": ["folder", "threads"]},
    "measure": {"sample": ["subject", "config"], "summarize": ["samples", "config"]},
    "task": {"load_tokenizer": ["folder"]},
}
SPEAKER = {"speaker": ["train", "base"]}
"""what a baseline of language models has instead of `fit`"""
FITTED = {"load_base": ["folder"], "load_model": ["folder"], "reading": ["study", "kind"],
          "inputs": ["tokenizer", "split", "max_length", "name"], "answered": ["model", "tokens"],
          "loss_of": ["class_weights_", "splits"], "metric": ["score_"], "example": ["folder", "max_length"]}
"""what a task gives in addition, if methods can fit it"""
SOURCE = re.compile(r"^Source:.*\b(19|20)\d\d\b", re.MULTILINE)
WHEN = re.compile(r"\bUse (it|this)\b|\bUse\b.*\bwhen\b|\bnot (for|when)\b", re.IGNORECASE | re.DOTALL)
SHAPE = re.compile(r"\[\w+(, ?\w+)*\]|\bshapes?\b")


@pytest.fixture(params=PARTS, ids=lambda part: "-".join(part))
def part(request: pytest.FixtureRequest) -> tuple[str, str, ModuleType]:
    kind, name = request.param
    return kind, name, parts.load(kind, name)


@pytest.fixture(params=CHOSEN, ids=lambda part: "-".join(part))
def chosen(request: pytest.FixtureRequest) -> tuple[str, str, ModuleType]:
    kind, name = request.param
    return kind, name, parts.load(kind, name)


def test_every_kind_has_parts() -> None:
    assert {kind for kind, _ in PARTS} == set(parts.ROOMS)
    assert {"full", "head", "lora", "prefix", "prompt"} <= set(parts.names("method"))
    assert {"int8", "prune_ffn"} <= set(parts.names("trim"))
    assert {"torch_eager", "onnx_runtime", "openvino_ir"} <= set(parts.names("engine"))
    assert parts.names("task")
    assert {"majority", "tfidf_logistic", "nearest_centroid"} <= set(parts.names("baseline"))


@pytest.mark.parametrize("name", parts.names("baseline"))
def test_a_baseline_has_a_name_in_words_and_a_source(name: str) -> None:
    title = parts.doc("baseline", name).split(":")[0]
    assert 5 < len(title) < 40, "the docstring begins with the name that the report gives it, then a colon"
    assert SOURCE.search(parts.doc("baseline", name))
    assert set(parts.load("baseline", name).TASKS) <= set(parts.names("task"))


def test_the_docstring_begins_with_one_sentence(part: tuple[str, str, ModuleType]) -> None:
    kind, name, module = part
    first = parts.doc(kind, name).split("\n\n")[0]
    assert first == (inspect.getdoc(module) or "").split("\n\n")[0]
    assert first.endswith("."), first
    assert len(first) <= 260, "one sentence says what it does"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name in PARTS if kind in ("trim", "engine")])
def test_what_a_study_names_begins_with_its_own_name(kind: str, name: str) -> None:
    assert parts.doc(kind, name).startswith(f"{name}: ")


def test_the_docstring_says_when_and_in_what_shapes(chosen: tuple[str, str, ModuleType]) -> None:
    kind, name, _ = chosen
    doc = parts.doc(kind, name)
    if kind in ("method", "trim", "engine"):
        assert WHEN.search(doc), "say when to use it and when not"
    if kind in ("method", "engine"):
        assert SHAPE.search(doc), "give shapes such as [B, T, D]"
    if kind in ("method", "trim"):
        assert SOURCE.search(doc), "name the paper and its section"


def test_the_config_is_frozen_and_refuses_unknown_keys(chosen: tuple[str, str, ModuleType]) -> None:
    config = chosen[2].Config()
    assert isinstance(config, BaseModel)
    assert config.model_config.get("frozen") is True
    with pytest.raises(ValidationError):
        type(config)(no_such_setting=1)
    for field, info in type(config).model_fields.items():
        assert info.description, f"{field} needs a description: it is what `trimtune explain` prints"
    assert type(config)(**config.model_dump(mode="json")) == config, "a config must survive JSON"


def test_the_tasks_exist(chosen: tuple[str, str, ModuleType]) -> None:
    tasks: Any = chosen[2].TASKS
    assert isinstance(tasks, tuple)
    assert tasks
    assert set(tasks) <= set(parts.names("task"))


def test_the_functions_of_its_kind(part: tuple[str, str, ModuleType]) -> None:
    kind, name, module = part
    functions = SPEAKER if kind == "baseline" and "causal_lm" in module.TASKS else FUNCTIONS[kind]
    for function, arguments in functions.items():
        found = getattr(module, function, None)
        assert callable(found), f"{kind} {name} lacks {function}()"
        assert inspect.getdoc(found) or function in ("available", "load", "sample", "summarize", "load_tokenizer"), function
        assert list(inspect.signature(found).parameters)[:len(arguments)] == arguments, function


@pytest.mark.parametrize("name", parts.names("task"))
def test_a_task_reads_its_rows_and_what_can_be_fitted_has_a_loss(name: str) -> None:
    module = parts.load("task", name)
    for function in ("read", "save", "load", "content", "summary"):
        assert callable(getattr(module.rows, function)), "`rows` is the module that reads the task's rows"
    if any(name in parts.load("method", method).TASKS for method in parts.names("method")):
        for function, arguments in FITTED.items():
            assert list(inspect.signature(getattr(module, function)).parameters)[:len(arguments)] == arguments, function
        one, other = (list(inspect.signature(getattr(module, function)).parameters) for function in ("loss", "score"))
        assert one[:len(other)] == other, "both judge what `answered` gives"
        assert module.METRIC.isidentifier()


@pytest.mark.parametrize("name", parts.names("method"))
def test_a_method_has_its_own_learning_rates(name: str) -> None:
    low, high = parts.load("method", name).LEARNING_RATES
    assert 1e-6 < low < high <= 1
    assert high / low >= 10, "a range narrower than a decade is a guess"


@pytest.mark.parametrize("name", parts.names("trim"))
def test_a_trim_says_what_it_needs(name: str) -> None:
    module = parts.load("trim", name)
    assert isinstance(module.NEEDS_DATA, bool)
    for task in module.TASKS if module.NUMERICS else ():
        assert any(module.NUMERICS in parts.load("engine", engine).NUMERICS.get(task, ()) for engine in parts.names("engine"))


@pytest.mark.parametrize("name", parts.names("engine"))
def test_an_engine_says_what_it_runs(name: str) -> None:
    module = parts.load("engine", name)
    assert tuple(module.NUMERICS) == module.TASKS, "number formats, by task"
    assert all("plain" in formats for formats in module.NUMERICS.values())
    assert "plain" in module.TOLERANCE
    numerics = {name for names in module.NUMERICS.values() for name in names}
    assert set(module.TOLERANCE) <= {"fp32", "bf16", "fp16"} | numerics, "by numerics, or by what precision runs"
    assert all(0 < most <= 0.5 for most in module.TOLERANCE.values())
    assert isinstance(getattr(module, "ONLY_IF_NAMED", False), bool)
    why_not = module.available()
    assert why_not is None or "pip install" in why_not


@pytest.mark.parametrize("name", parts.names("measure"))
def test_a_measure_says_what_it_reads(name: str) -> None:
    module = parts.load("measure", name)
    assert module.READINGS
    assert module.ROUNDS >= 1
    assert all(isinstance(quantity, Quantity) for quantity in module.READINGS.values())


@pytest.mark.parametrize("task", parts.names("task"))
def test_no_two_measures_of_a_task_give_one_reading(task: str) -> None:
    modules = [module for name in parts.names("measure") if task in (module := parts.load("measure", name)).TASKS]
    readings = [reading for module in modules for reading in module.READINGS]
    assert len(readings) == len(set(readings))
