"""Studies that are right: short forms, defaults, paths; and no text at all makes the reader fall over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tests.study.faults import says

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.records import Limit, Prefer, Study, Use
from trimtune.study import limits, read
from trimtune.study.schema import schema
from trimtune.study.uses import able

SCHEMA = Draft202012Validator(schema())
FOLDER = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def study(tmp_path: Path, text: str) -> Study:
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    return read.read(tmp_path / "study.yaml")


def test_two_lines_are_enough(tmp_path: Path) -> None:
    found = study(tmp_path, "name: mail\ndata: helpdesk\n")
    assert (found.model, found.task, found.data.train, found.prefer, found.seed) == \
        ("minilm", "text_classification", "helpdesk", "quality", 0)
    assert [use.name for use in found.tune] == ["head", "full", "lora", "prefix", "prompt"]
    assert [[use.name for use in chain] for chain in found.trim] == [[], ["int8"]]
    modules = {name: parts.load("engine", name) for name in parts.names("engine")}
    assert [use.name for use in found.engine] == [name for name, module in modules.items()
                                                  if found.task in module.TASKS and module.available() is None
                                                  and not getattr(module, "ONLY_IF_NAMED", False)]
    assert "torch_eager" in [use.name for use in found.engine]


@pytest.mark.parametrize("task", ["causal-lm", "text-classification"])
def test_an_engine_that_costs_much_runs_only_if_named(task: str, tmp_path: Path) -> None:
    text = f"name: mail\ndata: helpdesk\ntask: {task}\n"
    names = {use.name for use in study(tmp_path, text).engine}
    assert "torch_eager" in names
    assert "torch_compiled" not in names
    assert [use.name for use in study(tmp_path, text + "engine: [torch-compiled]\n").engine] == ["torch_compiled"]


def test_short_forms(tmp_path: Path) -> None:
    found = study(tmp_path, """
        name: mail
        data: helpdesk
        task: text-classification
        tune: [full, {lora: {r: 16}}, {lora: {r: 4, dropout: 0}}, head: , prompt]
        trim: [int8, [prune_ffn, int8], {prune_ffn: {ratio: 0.3}}]
        engine: [torch-eager]
        fit: {epochs: 2}
        require: {size_mb: <= 30, latency_p95_ms: ["< 8", "> 1"], fit_seconds: "≤ 1e3"}
        """.replace("head: ", "{head: }"))
    assert found.tune[1] == Use(name="lora", config={**parts.load("method", "lora").Config(r=16).model_dump()}, given={"r": 16})
    assert [use.label for use in found.tune] == ["full", "lora(r=16)", "lora(r=4,dropout=0.0)", "head", "prompt"]
    assert [[use.label for use in chain] for chain in found.trim] == [[], ["int8"], ["prune_ffn", "int8"],
                                                                      ["prune_ffn(ratio=0.3)"]]
    assert found.engine[0].name == "torch_eager"
    assert (found.fit.epochs, found.fit.batch_size) == (2, 32)
    assert [str(limit) for limit in found.require] == \
        ["size_mb <= 30", "latency_p95_ms < 8", "latency_p95_ms > 1", "fit_seconds <= 1000"]


def test_zeros_may_stand_behind_fits_and_before_what_has_none(tmp_path: Path) -> None:
    chains = "[[prune_ffn, prune_weights, sparse_int8], [prune_weights, {prune_ffn: {epochs: 0}}, prune_vocabulary]]"
    found = study(tmp_path, f"name: mail\ndata: helpdesk\ntrim: {chains}\n")
    assert [[use.name for use in chain] for chain in found.trim] == [
        [], ["prune_ffn", "prune_weights", "sparse_int8"], ["prune_weights", "prune_ffn", "prune_vocabulary"]]


def test_none_stays_where_the_study_puts_it(tmp_path: Path) -> None:
    found = study(tmp_path, "name: mail\ndata: helpdesk\ntrim: [int8, none]\n")
    assert [[use.name for use in chain] for chain in found.trim] == [["int8"], []]


def test_words_that_yaml_1_1_would_change(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("yes,no\na,x\n")
    found = study(tmp_path, "name: no\ndata: {train: t.csv, text: yes, label: no}\nbudget: {minutes: 1e1}\n")
    assert (found.name, found.data.text, found.data.label, found.budget.minutes) == ("no", "yes", "no", 10.0)


def test_paths_are_taken_from_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.csv").write_text("text,label\na,x\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "study.yaml").write_text("name: mail\nmodel: model\ndata: {train: rows/train.csv}\n")
    monkeypatch.chdir(tmp_path / "rows")
    found = read.read(Path("../study.yaml"))
    assert found.data.train == str(tmp_path / "rows" / "train.csv")
    assert found.model == str(tmp_path / "model")


def test_reading_a_study_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: mail\ndata: helpdesk\nrequire: {size_mb: '<= 30'}\n")
    code = ("import sys; from pathlib import Path; from trimtune.study import read; read.read(Path('study.yaml')); "
            "print([name for name in ('torch', 'transformers', 'peft', 'datasets', 'pandas', 'onnxruntime', 'openvino') "
            "if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_limits_from_the_command_line() -> None:
    assert limits.parse("size_mb<=25") == Limit(reading="size_mb", op="<=", value=25)
    assert limits.parse(" latency-p50-ms >  .5e1 ") == Limit(reading="latency_p50_ms", op=">", value=5)


def test_limits_against_the_parent() -> None:
    assert limits.parse("accuracy>=parent-0.01") == Limit(reading="accuracy", op=">=", value=-0.01, parent=True)
    assert limits.parse("perplexity ≤ parent + 2% surely") == Limit(reading="perplexity", op="<=", value=2, parent=True,
                                                                    percent=True, surely=True)
    written = ["accuracy >= parent - 0.01 surely", "macro_f1 >= parent", "perplexity <= parent + 2%",
               "forgetting <= parent + 0.1"]
    assert [str(limits.parse(text)) for text in written] == written


def _uses(kind: str, configs: dict[str, Any]) -> st.SearchStrategy[list[Any]]:
    def entry(name: str) -> st.SearchStrategy[Any]:
        settings_of = st.fixed_dictionaries({}, optional=configs.get(name, {}))
        return st.one_of(st.just(name), st.just(name.replace("_", "-")), settings_of.map(lambda given: {name: given}))
    names_ = able(kind, parts.names(kind), "text_classification")
    return st.lists(st.sampled_from(names_), min_size=1, max_size=3, unique=True).flatmap(
        lambda names: st.tuples(*map(entry, names)).map(list))


STUDIES = st.fixed_dictionaries(
    {"name": st.from_regex(r"[a-z][a-z0-9_-]{0,20}yx", fullmatch=True), "data": st.just("helpdesk"),
     "engine": st.just(["torch_eager"])},
    optional={
        "tune": _uses("method", {"lora": {"r": st.integers(1, 64), "dropout": st.floats(0, 0.9)}}),
        "trim": st.lists(st.sampled_from(["none", "int8", ["prune_ffn", "int8"], {"prune_ffn": {"ratio": 0.3}}]), unique_by=str),
        "fit": st.fixed_dictionaries({}, optional={"epochs": st.integers(1, 1000),
                                                   "precision": st.sampled_from(["auto", "fp32"])}),
        "budget": st.fixed_dictionaries({}, optional={"minutes": st.floats(0.01, 1e6) | st.integers(1, 100)}),
        "require": st.dictionaries(st.sampled_from(["size_mb", "latency_p50_ms", "fit_seconds"]),
                                   st.builds("{} {!r}".format, st.sampled_from(["<=", ">=", "<", ">"]), st.floats(0, 1e9)),
                                   max_size=2),
        "prefer": st.sampled_from(get_args(Prefer)), "seed": st.integers(0, 2**32 - 1)})


@pytest.mark.slow
@FOLDER
@given(given=STUDIES, flow=st.sampled_from([None, True, False]))
def test_the_file_the_dict_and_the_record_agree(given: dict[str, Any], flow: bool | None, tmp_path: Path) -> None:
    found = study(tmp_path, yaml.safe_dump(given, default_flow_style=flow, sort_keys=False))
    assert found == read.resolve(given, "study", tmp_path)
    assert found == Study.model_validate_json(found.model_dump_json())
    SCHEMA.validate(given)


PIECES = st.sampled_from([*"{}[]:,-&*!|>'\"%@`#?\n\t ~=", "\n  ", "\n- ", ": ", "name", "data", "helpdesk", "tune", "trim",
                          "lora", "int8",
                          "none", "require", "size_mb", "<= 3", "fit", "1e5", "null", "true", "---", "...", "!!int ", "&a ",
                          "*a", "<<",
                          "\x00", "\ud800", "\x85", "\u2028", "é", "🙂", "\\u", '"\\ud800"', "0x1f", "2020-99-99", "9" * 5000])


@FOLDER
@given(text=st.text(max_size=60) | st.lists(PIECES, max_size=25).map("".join)
       | st.lists(PIECES, max_size=8).map(lambda pieces: "name: mail\ndata: helpdesk\n" + "".join(pieces)))
def test_any_text_gives_a_study_or_an_error_in_words(text: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(read.read(tmp_path / "study.yaml"), Study)
    except TrimtuneError as error:
        says(error, "study.yaml")


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
                    max_leaves=6)


@FOLDER
@given(key=st.sampled_from([*Study.model_fields, "else"]), value=JSON)
def test_any_value_gives_a_study_or_an_error_in_words(key: str, value: Any, tmp_path: Path) -> None:
    try:
        found = read.resolve({"name": "mail", "data": "helpdesk", key: value}, "study", tmp_path)
    except TrimtuneError as error:
        says(error, "study")
    else:
        json.loads(found.model_dump_json())
