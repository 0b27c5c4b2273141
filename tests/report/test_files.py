"""What stands in the run folder after a report was written, and that it says what the records say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tests.report import results

from trimtune import flow, report
from trimtune.records import Reading
from trimtune.report import files
from trimtune.results import Choice, Result

SHAPES = ("nothing_fits", "none_measured", "one", pytest.param("hostile", marks=pytest.mark.slow))
NAMES = {"report.html", "report.md", "candidates.csv", "readings.jsonl", "choice.json", "predictions.csv", "result.json"}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_writes_every_file(shape: str, tmp_path: Path) -> None:
    given: Result = getattr(results, shape)()
    page = report.write(given, tmp_path / "runs" / "new")
    assert page == tmp_path / "runs" / "new" / "report.html"
    assert {path.name for path in page.parent.iterdir()} == NAMES, "all files, and no temporary one left"
    assert Result.model_validate_json((page.parent / "result.json").read_bytes()) == given
    assert Choice.model_validate_json((page.parent / "choice.json").read_bytes()) == given.choice


def test_candidates_csv_has_the_promised_columns_and_the_rows_figures() -> None:
    given = results.full()
    lines = list(csv.DictReader(files.candidates_csv(given).splitlines()))
    assert list(lines[0]) == [
        "candidate",
        "method",
        "trims",
        "engine",
        "status",
        "cause",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "macro_f1",
        "calibration_error",
        "latency_p50_ms",
        "latency_p95_ms",
        "tokenizing_ms",
        "throughput_rows_per_s",
        "peak_memory_mb",
        "private_memory_mb",
        "size_mb",
        "weights_mb",
        "load_ms",
        "energy_mj_per_row",
        "fit_seconds",
        "inside_limits",
        "tied_with_best",
        "verdict",
        "verdict_against",
        "verdict_words",
    ]
    assert [line["candidate"] for line in lines] == [row.name for row in given.rows]
    for line, row in zip(lines, given.rows, strict=True):
        if row.status == "measured":
            assert float(line["accuracy"]) == row.value("accuracy")
            assert float(line["accuracy_low"]) == row.readings["accuracy"].low
            fits = all(limit.allows(row.value(limit.reading) or 0) for limit in given.study.require)
            assert line["inside_limits"] == str(fits).lower()
        else:
            assert (line["accuracy"], line["inside_limits"]) == ("", "false") and "out of memory" in line["cause"]
    assert {line["candidate"] for line in lines if line["tied_with_best"] == "true"} == set(given.choice.tied)
    assert {line["inside_limits"] for line in lines} == {"true", "false"}


@pytest.mark.slow
def test_verdicts_are_in_every_file(tmp_path: Path) -> None:
    given = flow.rechoose(results.full())
    report.write(given, tmp_path)
    lines = {line["candidate"]: line for line in csv.DictReader((tmp_path / "candidates.csv").read_text().splitlines())}
    kept = json.loads((tmp_path / "choice.json").read_text())["verdicts"]
    page, told = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "## What trimming brought" in told
    assert {line["verdict"] for line in lines.values()} >= {"", "gain", "trade", "none"}
    assert len(kept) == sum(bool(row.candidate.trims) for row in given.rows) == 30
    for verdict in kept:
        line = lines[verdict["candidate"]]
        assert (line["verdict"], line["verdict_against"], line["verdict_words"]) == tuple(verdict[key] for key in
                                                                                          ("kind", "against", "words"))
        assert verdict["words"] in page
        assert verdict["words"] in told


def test_readings_jsonl_has_one_line_per_reading() -> None:
    given = results.one()
    lines = [json.loads(line) for line in files.readings_jsonl(given).splitlines()]
    assert [line["name"] for line in lines] == list(given.rows[0].readings)
    again = {key: value for key, value in lines[0].items() if key not in ("candidate", "packed", "version")}
    assert Reading(**again) == given.rows[0].readings["accuracy"] and lines[0]["candidate"] == "head@torch_eager"


def test_predictions_csv_speaks_labels() -> None:
    given = results.one()
    lines = list(csv.reader(files.predictions_csv(given).splitlines()))
    assert lines[0] == ["row", "truth", "head@torch_eager"] and len(lines) == 1 + len(given.truth)
    assert lines[1] == ["0", results.LABELS[given.truth[0]], results.LABELS[given.predictions["head@torch_eager"][0]]]
    assert files.predictions_csv(results.none_measured().model_copy(update={"truth": ()})) == "row,truth\n"


@pytest.mark.slow
def test_a_failed_report_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report.write(results.one(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(result: Result, folder: Path) -> str:
        raise MemoryError

    monkeypatch.setattr("trimtune.report.page.html", broken)
    with pytest.raises(MemoryError):
        report.write(results.nothing_fits(), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
