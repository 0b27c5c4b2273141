"""How commands end when something fails inside, the user stops them, or the reader of their output goes away."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trimtune import flow
from trimtune.cli import main
from trimtune.errors import StepFailed


@pytest.fixture
def study(tmp_path: Path) -> str:
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"row {index},{'ab'[index % 2]}\n" for index in range(40)))
    (tmp_path / "study.yaml").write_text("name: small\ndata: rows.csv\ntune: [head]\n")
    return str(tmp_path / "study.yaml")


def ending(error: BaseException) -> Any:
    def stop(*_: object) -> None:
        raise error

    return stop


@pytest.mark.parametrize(("error", "status", "says"), [
    (KeyboardInterrupt(), 130, "the same command goes on"),
    (StepFailed("out of memory: 3 GB"), 1, "out of memory: 3 GB"),
    (OSError(errno.ENOSPC, "No space left on device", "/disk/x"), 2, "/disk/x: No space left on device"),
    (MemoryError(), 1, "out of memory"),
])
def test_the_status_tells_what_happened(error: BaseException, status: int, says: str, study: str, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(flow, "run", ending(error))
    assert main(["run", study, "--json"]) == status
    out, shown = capsys.readouterr()
    assert out == ""
    assert says in shown
    assert "Traceback" not in shown


def test_an_unexpected_fault_is_one_line_and_a_file(study: str, monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(flow, "run", ending(ZeroDivisionError("by zero")))
    assert main(["run", study]) == 1
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: by zero" in shown
    assert "Traceback" not in shown
    log = re.search(r"Details: (\S+)", shown)
    assert log is not None
    assert "Traceback" in Path(log[1]).read_text()
    Path(log[1]).unlink()


def test_a_reader_that_goes_away_is_no_fault() -> None:
    command = subprocess.Popen([sys.executable, "-m", "trimtune", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    assert command.stderr.read() == b""
    command.wait()
    command.stderr.close()
