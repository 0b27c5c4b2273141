"""Wrong command lines: status 2, what was given, what is allowed, what to do; no traceback, nothing touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimtune.cli import main

BAD: dict[str, tuple[list[str], str]] = {
    "no such command": (["trian", "study.yaml"], "trian"),
    "near command": (["plann", "study.yaml"], "Did you mean"),
    "no such option": (["run", "study.yaml", "--fast"], "--fast"),
    "missing argument": (["run"], "STUDY"),
    "missing option": (["ship", "runs/none"], "--out"),
    "option without value": (["tune", "rows.csv", "--out"], "--out"),
    "too many arguments": (["plan", "a.yaml", "b.yaml"], "b.yaml"),
    "number wanted": (["tune", "rows.csv", "-o", "fit", "--epochs", "many"], "many"),
    "number out of range": (["tune", "rows.csv", "-o", "fit", "--epochs", "0"], "0"),
    "rate not above 0": (["tune", "rows.csv", "-o", "fit", "--lr", "-1"], "learning_rate"),
    "rate without end": (["tune", "rows.csv", "-o", "fit", "--lr", "inf"], "learning_rate"),
    "rate no number": (["tune", "rows.csv", "-o", "fit", "--lr", "nan"], "learning_rate"),
    "unknown method": (["tune", "rows.csv", "-o", "fit", "--method", "lorra"], "lora"),
    "unknown task": (["tune", "rows.csv", "-o", "fit", "--task", "poetry"], "poetry"),
    "unknown setting": (["tune", "rows.csv", "-o", "fit", "--set", "rank=3"], "rank"),
    "setting no pair": (["tune", "rows.csv", "-o", "fit", "--set", "r"], "--set r"),
    "setting no yaml": (["tune", "rows.csv", "-o", "fit", "--set", "r=[1"], "--set r=[1"),
    "setting of wrong type": (["tune", "rows.csv", "-o", "fit", "--set", "r=wide"], "wide"),
    "output not empty": (["tune", "rows.csv", "-o", "full"], "not empty"),
    "output is a file": (["tune", "rows.csv", "-o", "rows.csv"], "rows.csv"),
    "study absent": (["run", "nowhere.yaml"], "nowhere.yaml"),
    "study is a folder": (["plan", "full"], "full"),
    "study is a data file": (["plan", "rows.csv"], "rows.csv"),
    "init data absent": (["init", "nowhere.csv"], "nowhere.csv"),
    "init would overwrite": (["init", "rows.csv", "-o", "rows.csv"], "exists"),
    "init empty folder": (["init", "full", "-o", "new.yaml"], "train"),
    "init column absent": (["init", "rows.csv", "-o", "new.yaml", "--text", "body"], "body"),
    "choose no run": (["choose", "runs/none"], "runs/none"),
    "choose no limit": (["choose", "runs/none", "--require", "small"], "small"),
    "choose unknown reading": (["choose", "runs/none", "--require", "speed<=3"], "speed"),
    "choose unknown preference": (["choose", "runs/none", "--prefer", "beauty"], "beauty"),
    "report no run": (["report", "full"], "full"),
    "ship no run": (["ship", "runs/none", "-o", "bundle"], "runs/none"),
    "ship over a folder": (["ship", "runs/none", "-o", "full"], "full"),
    "ship over a file": (["ship", "runs/none", "-o", "rows.csv"], "rows.csv"),
    "predict no bundle": (["predict", "nowhere", "hello"], "nowhere"),
    "predict other folder": (["predict", "full", "hello"], "full"),
    "predict two sources": (["predict", "full", "hello", "--file", "rows.csv"], "rows.csv"),
    "predict column of no file": (["predict", "full", "hello", "--column", "text"], "--column"),
    "predict unknown format": (["predict", "full", "hello", "--format", "xml"], "xml"),
    "predict table to a file": (["predict", "full", "hello", "--format", "table", "-o", "x.csv"], "table"),
    "predict answers of no length": (["predict", "full", "hello", "--max-new-tokens", "0"], "0"),
    "ship no run in another format": (["ship", "runs/none", "-o", "bundle", "--format", "merged"], "runs/none"),
    "predict over its input": (["predict", "full", "--file", "rows.csv", "-o", "rows.csv"], "input"),
    "explain unknown": (["explain", "lorra"], "lora"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"row {index},{'ab'[index % 2]}\n" for index in range(40)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("words", "named"), BAD.values(), ids=BAD)
def test_a_wrong_command_line(words: list[str], named: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(here)
    assert main(words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert named in error
    assert "Traceback" not in error
    assert "Value error" not in error
    assert len(error.strip().splitlines()) >= 3, error
    assert "inside trimtune" not in error
    assert contents(here) == before


def test_a_folder_that_cannot_be_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "study.yaml").write_text("name: small\ndata: rows.csv\n")
    assert main(["run", "study.yaml", "--runs", "rows.csv"]) == 2
    error = capsys.readouterr().err
    assert "rows.csv" in error
    assert "--runs" in error


@pytest.mark.parametrize("words", [["trian"], ["choose", "runs/none"], ["tune", "rows.csv", "-o", "full", "--json"]])
def test_the_installed_command_ends_alike(words: list[str], here: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "trimtune", *words], capture_output=True, text=True, cwd=here,
                          env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("trimtune: ")
    assert "Traceback" not in done.stderr
