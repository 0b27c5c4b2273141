"""What commands print, from records alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from tests.report import results

from trimtune import flow, parts
from trimtune.cli import main, tables
from trimtune.records import Prefer
from trimtune.study import read

LIGHT = {"torch", "transformers", "peft", "altair", "sklearn", "optuna", "openvino", "onnxruntime", "pandas"}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "helpdesk"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(results.full().model_dump_json())
    return folder


def loads(words: list[str]) -> set[str]:
    code = f"import sys\nfrom trimtune.cli import main\nassert main({words!r}) == 0\nprint('MODULES', *sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(shown.splitlines()[-1].split())


@pytest.mark.parametrize("words", [["--help"], ["tune", "--help"], ["parts"], ["explain", "lora"], ["schema"]])
def test_looking_loads_nothing_heavy(words: list[str]) -> None:
    assert not loads(words) & LIGHT


def test_choosing_loads_nothing_heavy(run_folder: Path) -> None:
    assert not loads(["choose", str(run_folder), "--require", "size_mb<=25"]) & LIGHT


def test_every_command_teaches_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    from trimtune.cli import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    wanted = {"init", "plan", "run", "choose", "report", "ship", "predict", "tune", "parts", "explain", "show-batch", "doctor",
              "schema"}
    assert wanted <= set(commands)
    for name in commands:
        assert main([name, "--help"]) == 0
        assert f"Example: trimtune {name}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("prefer", get_args(Prefer))
def test_choose_prints_one_document(run_folder: Path, prefer: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in run_folder.iterdir()}
    assert main(["choose", str(run_folder), "--require", "size_mb<=25", "--prefer", prefer, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["require"] == ["size_mb <= 25"]
    assert found["picked"] is not None
    assert {"picked", "runner_up", "binding_limit", "rejected", "sentence"} <= found.keys()
    assert {path.name: path.read_bytes() for path in run_folder.iterdir()} == before


def test_an_impossible_limit_gets_the_nearest_miss(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["choose", str(run_folder), "--require", "size_mb<=0.5"]) == 0
    shown = capsys.readouterr().out
    assert "size_mb" in shown.rsplit("\n\n", 2)[-2]
    assert "--save" in shown.splitlines()[-1]


@pytest.mark.slow
def test_save_keeps_the_choice(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["choose", str(run_folder), "--require", "size_mb<=25", "--save"]) == 0
    picked = json.loads((run_folder / "choice.json").read_text())["picked"]
    assert picked in capsys.readouterr().out
    kept = json.loads((run_folder / "result.json").read_text())
    assert kept["choice"]["picked"] == picked
    assert kept["study"]["require"][0]["value"] == 25
    assert main(["report", str(run_folder), "--no-open"]) == 0


def test_the_table_shows_the_pick_first_and_why_others_failed(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["choose", str(run_folder), "--require", "size_mb<=25"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("→")
    assert sum(line.startswith("failed: prompt") for line in lines) == 3
    assert sum(line.startswith("×") for line in lines) > 5


@pytest.mark.parametrize("width", [80, 130])
def test_the_table_shows_what_decides(run_folder: Path, width: int, capsys: pytest.CaptureFixture[str],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["choose", str(run_folder), "--require", "macro_f1>=0.8"]) == 0
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert "Macro-F1" in head
    assert f"{results.full().row(first.split()[1]).readings['macro_f1'].value:.1%}" in first


def test_the_table_shows_what_trimming_brought() -> None:
    """In words where there is room, else by a mark; and each verdict in full below."""
    from io import StringIO

    from rich.console import Console

    given = flow.rechoose(results.full())
    for width, gained in ((100, "+"), (130, "gain")):
        out = StringIO()
        tables.show_result(given, Console(file=out, width=width), "")
        lines = out.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        row = next(line for line in lines if line.startswith("→"))
        assert row.split()[1] == given.choice.picked, "a name isn't broken"
        assert row.split()[-1] == gained
        assert ("trimming: + gain   ± trade" in lines) == (width == 100)
        assert any(line.startswith("full+int8@onnx_runtime: gain: 3.8× smaller, 2.2× faster, ") for line in lines)
        assert any(line.startswith("lora+prune_ffn+int8@onnx_runtime, against lora@onnx_runtime: gain: ") for line in lines)


def test_init_writes_a_study_that_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my mails"
    folder.mkdir()
    rows = [("refund please", "billing"), ("where is my bill", "billing"), ("can't sign in", "login"), ("password lost", "login")]
    for name, times in (("train", 12), ("dev", 4), ("test", 4)):
        lines = [f"{text} {name} {index},{label}" for index in range(times) for text, label in rows]
        (folder / f"{name}.csv").write_text("message,team\n" + "\n".join(lines) + "\n")
    out = tmp_path / "studies" / "study.yaml"
    assert main(["init", str(folder), "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "text 'message'" in shown
    study = read.read(out)
    assert study.name == "my-mails"
    assert (study.data.text, study.data.label) == ("message", "team")
    assert Path(study.data.train) == folder / "train.csv"
    assert study.data.validation == str(folder / "dev.csv")
    assert study.data.test == str(folder / "test.csv")


def test_parts_lists_each_file_of_the_folders(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parts", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["kind"], one["name"]) for one in found] == [(kind, name) for kind in parts.ROOMS for name in parts.names(kind)]
    assert all(one["says"] for one in found)


def test_explain_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "lora"]) == 0
    shown = capsys.readouterr().out
    assert "r: a whole number" in shown
    assert "learning rates searched: 0.0005 to 0.01" in shown
    assert "Source:" in shown


def test_doctor_knows_every_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["engines"]) == set(parts.names("engine"))
    for name, reason in found["engines"].items():
        needed = {package: found["packages"][package] for package in getattr(parts.load("engine", name), "PACKAGES", ())}
        assert reason or all(needed.values()), f"{name} is available without {needed}"
    assert found["devices"][0] == "cpu"
    assert isinstance(found["problems"], list)
