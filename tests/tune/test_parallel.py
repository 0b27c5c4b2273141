"""Two processes of torchrun make the fit that one makes: same scores, same weights but for the last digits."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import trimtune
from trimtune.cli import main
from trimtune.store import sha256
from trimtune.tune.parallel import Team

ROWS = {"train": 43, "validation": 29, "test": 12}
"""rows in batches of 7 (of 14 to validate): odd shares, and last batches of one row, where the second process gets none"""

RATES = {"lora": 5e-3, "full": 3e-4}


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 9))
def test_each_row_is_dealt_once_and_the_weights_make_the_mean_of_all(rows: int, size: int, at_once: int) -> None:
    batch, values = list(range(rows)), [float(row * row) for row in range(rows)]
    shares = [Team(rank, size).pieces(batch, at_once) for rank in range(size)]
    assert len({len(pieces) for pieces in shares}) == 1, "everyone takes part in every pass"
    dealt = [piece for pieces in shares for piece in pieces]
    assert all(1 <= len(mine) <= (at_once or rows) for mine, _ in dealt)
    assert sorted(row for mine, weight in dealt if weight for row in mine) == batch
    means = [weight * sum(values[row] for row in mine) / len(mine) for mine, weight in dealt]
    assert sum(means) / size == pytest.approx(sum(values) / rows)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for split, count in ROWS.items():
        source = Path(trimtune.__file__).parent / "data" / "helpdesk" / f"{split}.csv"
        with source.open(encoding="utf-8", newline="") as file:
            names = ("login_problem", "refund_request", "feature_request")
            found = [row for row in csv.DictReader(file) if row["label"] in names][:count]
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(found)
    return folder


def words(rows: Path, out: Path, method: str, *more: str) -> list[str]:
    data = [str(rows / "train.csv"), "--validation", str(rows / "validation.csv"), "--test", str(rows / "test.csv")]
    return ["tune", *data, "--method", method, "--lr", str(RATES[method]), "--epochs", "2", "--batch-size", "7",
            "--max-length", "16", "--precision", "fp32", "--out", str(out), "--json", *more]


def by_torchrun(tune_words: list[str]) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "trimtune", *tune_words]


def tune(rows: Path, out: Path, processes: int, method: str, *more: str) -> dict[str, Any]:
    if processes == 1:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert main(words(rows, out, method, *more)) == 0
        text = said.getvalue()
    else:
        done = subprocess.run(by_torchrun(words(rows, out, method, *more)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        text = done.stdout
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture(scope="module")
def by_two(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """What two processes make, undisturbed: the folder, and what was said of it."""
    @cache
    def make(method: str, *more: str) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("by_two") / "fit"
        return folder, tune(rows, folder, 2, method, *more)

    return make


def kill(run: subprocess.Popen[bytes], out: str) -> None:
    """torchrun and the processes that it started, which have sessions of their own: those with this --out in their words."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if out.encode() in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
    run.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "more"), [("lora", ["--set", "dropout=0"]), ("full", [])])
def test_two_processes_make_the_fit_of_one(method: str, more: list[str], rows: Path, by_two: Any, tmp_path: Path) -> None:
    one, (folder, two) = tune(rows, tmp_path / "one", 1, method, *more), by_two(method, *more)
    for name in ("curve", "accuracy", "epochs_run", "trained_parameters"):
        assert one[name] == two[name]
    assert one["losses"] == pytest.approx(two["losses"], rel=1e-4)
    assert one["losses"][0] > one["losses"][1]
    assert max(one["curve"]) > 0.4, "three classes: it learned something"
    file = "adapter/adapter_model.safetensors" if method == "lora" else "model.safetensors"
    alone, together = (load_file(made / file) for made in (tmp_path / "one", folder))
    assert alone.keys() == together.keys()
    apart = max(float((alone[name] - together[name]).abs().max()) for name in alone)
    assert apart < RATES[method] / 3  # each of the 14 steps moves a weight by about the rate; sums are rounded in another order


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])  # LoRA's own dropout is on: every process has generators of its own
def test_two_processes_that_are_killed_go_on_as_if_nothing_had_been(method: str, rows: Path, by_two: Any, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    folder, undisturbed = by_two(method)
    started = by_torchrun(words(rows, tmp_path / "killed", method))
    monkeypatch.setenv("TRIMTUNE_CHECKPOINT_SECONDS", "0")
    run = subprocess.Popen(started, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not list((tmp_path / ".killed.part").glob("checkpoints/*/00000000[3-9].*")) and time.monotonic() < until:
        time.sleep(0.01)
    kill(run, str(tmp_path / "killed"))
    assert not (tmp_path / "killed").exists()
    monkeypatch.delenv("TRIMTUNE_CHECKPOINT_SECONDS")
    done = subprocess.run(started[:-1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resumed at epoch" in done.stderr
    told = json.loads((tmp_path / "killed" / "metrics.json").read_text(encoding="utf-8"))
    assert told["losses"] == undisturbed["losses"]
    whole, killed = ({str(path.relative_to(made)): sha256(path) for path in made.rglob("*.safetensors")}
                     for made in (folder, tmp_path / "killed"))
    assert killed == whole
    assert not (tmp_path / ".killed.part").exists()
