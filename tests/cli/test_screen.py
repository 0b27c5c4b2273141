"""What is shown while a command works: a log stays short, a terminal stays clean, quiet is quiet."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest
from rich.console import Console

from trimtune import screen

EVENTS = [
    {"kind": "stage", "text": "tune"},
    {"kind": "step", "state": "start", "step": "tune", "part": "lora"},
    *({"kind": "progress", "text": "fit", "done": index, "total": 500} for index in range(500)),
    {"kind": "score", "epoch": 0, "score": 0.5},
    {"kind": "step", "state": "done", "step": "tune", "part": "lora", "about": "at learning rate 0.001, seed 0",
     "seconds": 12.34, "start_seconds": 0.36},
    {"kind": "step", "state": "reused", "step": "tune", "part": "head", "seconds": 2.0, "start_seconds": 0.0},
    {"kind": "step", "state": "failed", "step": "trim", "part": "int8", "cause": "no [kernel] here"},
    {"kind": "warning", "text": "it is made again"},
]
CODE = f"from trimtune import screen\nwith screen.watching() as watch:\n    for event in {EVENTS!r}: watch(event)"


def test_a_log_has_a_line_per_finished_step() -> None:
    shown = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert shown.stdout == ""
    lines = [line.partition("] ")[2] or line for line in shown.stderr.splitlines()]
    assert lines == ["tune", "done    tune lora at learning rate 0.001, seed 0: 12.3 s (process 0.4 s)",
                     "reused  tune head (2.0 s spared)", "failed  trim int8: no [kernel] here", "warning: it is made again"]


def test_a_log_gets_progress_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    console = Console(file=io.StringIO(), width=100)
    watch = screen._Plain(console)
    watch({"kind": "step", "state": "start", "step": "tune", "part": "lora", "about": "at learning rate 0.001, seed 0"})
    for index in range(100):
        now[0] += 0.5
        watch({"kind": "progress", "text": "fit", "done": index, "total": 100})
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 5
    assert lines[0] == "[00:10]    tune lora at learning rate 0.001, seed 0: fit 19%"


def test_a_terminal_keeps_the_finished_steps_alone() -> None:
    ours, theirs = pty.openpty()
    command = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.DEVNULL, stderr=theirs,
                               env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"})
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux says so when the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert command.wait() == 0
    text = shown.decode()
    assert "done    tune lora at learning rate 0.001, seed 0: 12.3 s" in text
    assert "no [kernel] here" in text
    assert "\x1b[?25h" in text, "the cursor is shown again"


def test_quiet_lets_warnings_through(capsys: pytest.CaptureFixture[str]) -> None:
    with screen.watching(quiet=True) as watch:
        for event in EVENTS:
            watch(event)
    assert capsys.readouterr().err.strip() == "warning: it is made again"
