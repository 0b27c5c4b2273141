"""What is a process's own, in fresh processes: memory that is written, and not a file that is mapped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtune.measure import _machine, memory
from trimtune.measure._subject import open_subject, take_turn
from trimtune.process import Worker
from trimtune.records import Artifact

GROWTH = """
import sys
import numpy as np
from trimtune.measure import _machine
mapped = np.memmap(sys.argv[1], dtype=np.uint8, mode="r")
before = _machine.private_mb()
mapped.sum()
read = _machine.private_mb()
block = np.ones(10_000_000)
print(read - before, _machine.private_mb() - read)
"""


def test_written_memory_is_private_and_a_mapped_file_is_not(tmp_path: Path) -> None:
    if _machine.private_mb() is None:
        pytest.skip("this system doesn't tell private memory")
    (tmp_path / "weights").write_bytes(bytes(60_000_000))
    done = subprocess.run([sys.executable, "-c", GROWTH, str(tmp_path / "weights")], capture_output=True, text=True, check=True)
    mapped, written = map(float, done.stdout.split())
    assert mapped < 5
    assert 75 < written < 90


def test_without_the_systems_word_there_is_no_figure() -> None:
    taken = {"before_mb": 10.0, "peak_mb": 30.0, "peak_resets": True, "before_private_mb": None, "private_mb": None}
    found = memory.summarize([taken], memory.Config())
    assert found["peak_memory_mb"].value == 20.0
    assert found["private_memory_mb"].value is None
    assert "doesn't tell" in found["private_memory_mb"].note
    known = memory.summarize([{**taken, "before_private_mb": 4.0, "private_mb": 16.5}], memory.Config())
    assert known["private_memory_mb"].value == 12.5


def test_what_a_candidate_loads_is_its_own(rows: Artifact, runnable: Callable[..., Artifact]) -> None:
    if _machine.private_mb() is None:
        pytest.skip("this system doesn't tell private memory")
    found = []
    for name, ballast_mb in (("light", 0), ("heavy", 120)):
        folder = runnable(name, ballast_mb=ballast_mb).folder
        with Worker() as worker:  # this process may hold freed memory that a candidate would fill unseen
            worker.open(open_subject, folder, "token_votes", rows.folder, "text_classification", 32, 1, {})
            taken = worker.ask(take_turn, "memory", {}, 0)
        found.append(memory.summarize([taken], memory.Config())["private_memory_mb"].value or 0.0)
    assert 100 < found[1] - found[0] < 140
