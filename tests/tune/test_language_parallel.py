"""Two processes of torchrun make the fit of a language model that one makes, packed or padded."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.tasks import small_lm

from trimtune.cli import main

pytestmark = pytest.mark.slow

RATES = {"lora": 5e-3, "full": 1e-3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of a few thousand weights, and 43 rows in batches of 7: odd shares, answers of unlike lengths, a last row alone."""
    made = tmp_path_factory.mktemp("language")
    small_lm.make(made / "model", "llama")
    for name, count in (("train", 43), ("validation", 15), ("test", 8)):
        with (made / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt", "completion"])
            writer.writerows([text, " ".join(reversed(text.split()))] for text in small_lm.texts(name)[:count])
    return made


def tune(folder: Path, out: Path, processes: int, method: str, *more: str) -> dict[str, Any]:
    data = [str(folder / "train.csv"), "--validation", str(folder / "validation.csv"), "--test", str(folder / "test.csv")]
    words = ["tune", *data, "--task", "causal-lm", "--model", str(folder / "model"), "--method", method,
             "--lr", str(RATES[method]), "--epochs", "2", "--batch-size", "7", "--max-length", "200", "--precision", "fp32",
             "--out", str(out), "--json", *more]
    if processes == 1:
        with redirect_stdout(io.StringIO()) as said:
            assert main(words) == 0
        text = said.getvalue()
    else:
        start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "-m", "trimtune"]
        done = subprocess.run([*start, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        text = done.stdout
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize(("method", "more"), [("lora", ["--set", "dropout=0", "--packing", "on"]), ("full", [])],
                         ids=["lora packed", "full"])  # the second one sharded (FSDP2), its output layer split off
def test_two_processes_make_the_fit_of_one(method: str, more: list[str], folder: Path, tmp_path: Path) -> None:
    one, two = (tune(folder, tmp_path / str(processes), processes, method, *more) for processes in (1, 2))
    for name in ("epochs_run", "trained_parameters", "packed"):
        assert one[name] == two[name]
    assert one["packed"] == ("--packing" in more)
    assert one["curve"] == pytest.approx(two["curve"], abs=1e-4)
    assert one["perplexity"] == pytest.approx(two["perplexity"], rel=1e-4)
    assert one["losses"] == pytest.approx(two["losses"], rel=1e-5), "each share weighs as many tokens as it learns"
    assert one["losses"][0] - one["losses"][1] > 0.05
    file = "adapter/adapter_model.safetensors" if method == "lora" else "model.safetensors"
    alone, together = (load_file(tmp_path / made / file) for made in "12")
    assert alone.keys() == together.keys()
    assert max(float((alone[name] - together[name]).abs().max()) for name in alone) < RATES[method] / 10
