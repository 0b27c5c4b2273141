"""The whole flow on real rows: what a user gets, what a rerun repeats, what a failure stops."""

import csv
import json

import pytest

from tests.conftest import ROOT
from tests.tasks.small_minilm import first_layers
from trimtune import flow, parts
from trimtune.results import Result
from trimtune.ship.source import read_result
from trimtune.study import read

COLUMNS = ["candidate", "method", "trims", "engine", "status", "cause", "accuracy", "accuracy_low", "accuracy_high",
           "macro_f1", "calibration_error", "latency_p50_ms", "latency_p95_ms", "tokenizing_ms", "throughput_rows_per_s",
           "peak_memory_mb",
           "private_memory_mb", "size_mb", "weights_mb", "load_ms", "energy_mj_per_row", "fit_seconds", "inside_limits",
           "tied_with_best", "verdict", "verdict_against", "verdict_words"]

STUDY = {"name": "small", "model": "minilm", "tune": ["head"], "trim": ["none", "int8"],
         "engine": ["torch_eager", "onnx_runtime"], "fit": {"epochs": 2, "max_length": 32},
         "budget": {"trials": 2, "seeds": 1, "minutes": 5}, "require": {"size_mb": "<= 60"}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(runs, helpdesk_files):
    """Runs the study, with changes. All runs share one store, so what is asked for twice is made once."""
    return lambda **changes: flow.run(read.resolve({**STUDY, "data": helpdesk_files, **changes}, "study", runs), runs)


@pytest.fixture(scope="module")
def result(run):
    return run()


@pytest.mark.slow
def test_a_run_leaves_a_measured_table_a_choice_and_a_report(result, runs):
    folder = runs / "small"
    with (folder / "candidates.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert {row["candidate"] for row in rows} == {f"head{trim}@{engine}" for trim in ("", "+int8") for engine in STUDY["engine"]}
    assert all(row["status"] == "measured" for row in rows)
    for row in rows:
        assert float(row["accuracy_low"]) <= float(row["accuracy"]) <= float(row["accuracy_high"])
        if row["latency_p95_ms"]:  # a busy machine may have too few samples for it
            assert float(row["latency_p50_ms"]) <= float(row["latency_p95_ms"])
    sizes = {row["candidate"]: float(row["size_mb"]) for row in rows}
    assert sizes["head+int8@onnx_runtime"] < 0.5 * sizes["head@onnx_runtime"]
    choice = json.loads((folder / "choice.json").read_text())
    assert {"picked", "runner_up", "binding_limit", "rejected", "sentence"} <= set(choice)
    assert sizes[choice["picked"]] <= 60
    assert {one["candidate"] for one in choice["rejected"]} == set(sizes) - {choice["picked"]}
    assert result.choice.picked == choice["picked"]
    for name in ("report.html", "report.md", "readings.jsonl", "predictions.csv", "result.json"):
        assert (folder / name).stat().st_size > 100
    assert (folder / "tuned" / "head" / "model.safetensors").exists()


@pytest.mark.slow
def test_the_same_answers_come_back_from_disk_and_other_limits_need_no_run(result, runs):
    again = read_result(runs / "small")
    assert again.choice == result.choice
    assert flow.rechoose(again).choice == result.choice, "speeds and verdicts too come from what is stored"
    trimmed = {row.name for row in result.rows if row.candidate.trims and row.status == "measured"}
    assert {verdict.candidate for verdict in result.choice.verdicts} == trimmed != set()
    old = {key: value for key, value in again.model_dump().items() if key != "by_round"}
    assert flow.rechoose(Result.model_validate(old)).choice.picked, "a result from before rounds were kept"
    from trimtune.records import Limit

    none = flow.rechoose(again, [Limit(reading="size_mb", op="<=", value=1)])
    assert none.choice.picked is None
    assert "size_mb" in none.choice.sentence


def tie_said(result, folder):
    """Whether the choice, choice.json, report.md and a choice made anew all begin with a baseline that isn't beaten."""
    said = [result.choice.sentence, json.loads((folder / "choice.json").read_text())["sentence"],
            (folder / "report.md").read_text().split("\n\n")[1], flow.rechoose(read_result(folder)).choice.sentence]
    found = {text.startswith(("No gain from tuning is shown here: ", "Tuning loses here: ")) for text in said}
    assert len(found) == 1, said
    return found.pop()


@pytest.mark.slow
def test_where_counting_words_is_enough_the_first_sentence_says_so(run, runs, tmp_path):
    for name in ("train", "validation", "test"):
        with (ROOT / "src/trimtune/data/helpdesk" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["label"] in ("login_problem", "refund_request", "feature_request")]
        rows = rows[:{"train": 120, "validation": 48, "test": 120}[name]]
        with (tmp_path / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(rows)
    data = {name: str(tmp_path / f"{name}.csv") for name in ("train", "validation", "test")}
    found = run(name="easy", data=data, trim=["none"], engine=["torch_eager"])
    assert tie_said(found, runs / "easy")
    assert found.choice.unbeaten_baselines
    assert found.choice.picked == "head@torch_eager"
    old = found.model_dump()
    del old["baselines"]
    assert Result.model_validate(old).baselines == (), "a result from before there were baselines"


@pytest.mark.slow
def test_where_words_alone_say_little_tuning_beats_every_baseline(run, runs, shared_data, tmp_path):
    lines = (shared_data / "sst2" / "train.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    for name, part in (("train", lines[1:1201]), ("validation", lines[1201:1501]), ("test", lines[1501:2301])):
        (tmp_path / f"{name}.csv").write_text(lines[0] + "".join(part), encoding="utf-8")
    data = {name: str(tmp_path / f"{name}.csv") for name in ("train", "validation", "test")}
    found = run(name="sentiment", data=data, tune=["lora"], trim=["none"], engine=["torch_eager"],
                fit={"epochs": 2, "max_length": 48}, budget={"trials": 1, "seeds": 1, "minutes": 5}, require=None)
    assert not tie_said(found, runs / "sentiment")
    assert found.choice.unbeaten_baselines == ()
    known = {name for name in parts.names("baseline") if "text_classification" in parts.load("baseline", name).TASKS}
    assert {baseline.name for baseline in found.baselines} == known


@pytest.mark.slow
def test_a_rerun_with_one_more_method_takes_only_the_new_one(result, run):
    more = run(tune=["head", "lora"], skip=["lora+*", "lora@onnx_runtime"])
    assert more.row("lora@torch_eager").status == "measured"
    fresh = {(step.step, step.part) for step in more.steps if not step.reused}
    assert {step.part for step in more.steps if step.step == "tune" and step.reused} == {"head"}
    assert ("tune", "head") not in fresh
    assert ("tune", "lora") in fresh
    kept = {row.name: row.readings["accuracy"] for row in result.rows}
    assert all(more.row(name).readings["accuracy"] == reading for name, reading in kept.items())


@pytest.mark.slow
def test_a_candidate_that_fails_is_a_row_with_its_cause_and_stops_nothing(run):
    found = run(name="failing", tune=["head", {"lora": {"targets": ["q_proj"]}}], trim=["none"], engine=["torch_eager"])
    failed = next(row for row in found.rows if row.status == "failed")
    assert "q_proj" in failed.cause
    assert "query" in failed.cause
    assert found.choice.picked == "head@torch_eager"
    assert any(one.candidate == failed.name and "q_proj" in one.reason for one in found.choice.rejected)


MIRROR = '''"""Mirror: hands the model on as it is.

Use it in a test only.

Source: none; it is a test's.
"""

from pydantic import BaseModel, ConfigDict

from trimtune.store import link_tree

TASKS = ("text_classification",)
NEEDS_DATA = False
NUMERICS = None


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def run(folder, source, config, setting):
    link_tree(source, folder)
    return {}
'''


@pytest.mark.slow
def test_a_dropped_in_trim_runs_like_any_other(result, run, tmp_path, monkeypatch):
    (tmp_path / "trim").mkdir()
    (tmp_path / "trim" / "mirror.py").write_text(MIRROR)
    monkeypatch.setenv("TRIMTUNE_PARTS", str(tmp_path))
    found = run(name="mirror", trim=["mirror"], engine=["torch_eager"])
    mirrored, plain = found.row("head+mirror@torch_eager"), found.row("head@torch_eager")
    assert mirrored.status == "measured", mirrored.cause
    assert found.predictions[mirrored.name] == found.predictions[plain.name]


@pytest.mark.slow
def test_an_engine_that_is_not_here_makes_its_candidates_unavailable(result, run, tmp_path, monkeypatch):
    source = parts._files("engine")["torch_eager"].read_text(encoding="utf-8")
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / "absent.py").write_text(source + "\n\ndef available():\n    return 'pip install absent'\n")
    monkeypatch.setenv("TRIMTUNE_PARTS", str(tmp_path))
    found = run(name="absent", trim=["none"], engine=["absent", "torch_eager"])
    gone = found.row("head@absent")
    assert gone.status == "unavailable"
    assert gone.cause == "absent is not available here: pip install absent"
    assert found.row("head@torch_eager").status == "measured"


@pytest.mark.slow
def test_the_next_smaller_model_is_tuned_measured_and_told_but_not_picked(run, runs, tmp_path):
    small = first_layers(tmp_path / "mini", 2)
    found = run(name="beside", trim=["none"], engine=["torch_eager"], smaller=str(small), require={})
    (rival,) = found.rivals
    assert (rival.name, rival.status) == ("mini:head@torch_eager", "measured")
    assert rival.value("size_mb") < 0.75 * found.row("head@torch_eager").value("size_mb")
    assert [row.name for row in found.rows] == ["head@torch_eager"]
    assert found.choice.picked == "head@torch_eager"
    (verdict,) = found.choice.smaller
    assert (verdict.candidate, verdict.against) == ("mini:head@torch_eager", "head@torch_eager")
    assert flow.rechoose(read_result(runs / "beside")).choice == found.choice, "from what is stored, at once"
    text = (runs / "beside" / "report.md").read_text()
    assert "## The next smaller model" in text and str(verdict) in text.replace("\\", "")
    assert "mini:head@torch_eager" in (runs / "beside" / "report.html").read_text().replace("<wbr>", "")
    assert "mini:head@torch_eager" in (runs / "beside" / "readings.jsonl").read_text()
    took = flow.plan(found.study, runs).forecast
    assert took["mini:head"]["minutes"] > 0 and set(took) == {"head", "mini:head"}, "what the smaller one takes is forecast too"
    tunes = {step.key for step in found.steps if step.step == "tune" and not step.reused}
    named = run(name="named", model=str(small), trim=["none"], engine=["torch_eager"], require={})
    assert tunes and all(step.reused for step in named.steps if step.step == "tune"), "to ship it nothing is tuned again"
