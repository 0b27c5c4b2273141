"""The gate stops what a broken step would have shipped, at the hop where it broke, and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.ship.conftest import folder_of, result_of

from trimtune.errors import StepFailed
from trimtune.ship import bundle as bundles
from trimtune.ship import parity

Forge = Callable[[Path, Callable[[Path], None]], None]


def test_a_difference_is_judged_by_its_largest() -> None:
    before = np.zeros((50, 3), np.float32)
    before[:, 0] = 1
    after = before.copy()
    after[7, 2] += 2e-3
    assert not parity.compare("hop", before, after, 1e-3, 0.99).passed
    assert parity.compare("hop", before, after, 3e-3, 0.99).passed
    assert parity.compare("hop", before, after, None, 0.9).passed


def test_labels_must_agree_even_where_the_difference_is_not_judged() -> None:
    before = np.eye(10, dtype=np.float32)[np.arange(100) % 10]
    after = before.copy()
    after[:20] = np.roll(after[:20], 1, axis=-1)
    hop = parity.compare("hop", before, after, None, 0.9)
    assert not hop.passed
    assert hop.agreement == pytest.approx(0.8)
    after[10:20] = before[10:20]
    assert parity.compare("hop", before, after, None, 0.9).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_answers_that_are_no_numbers_fail(bad: float) -> None:
    before = np.zeros((5, 2), np.float32)
    after = before.copy()
    after[3, 1] = bad
    assert not parity.compare("hop", before, after, None, 0.9).passed


def test_a_label_may_only_differ_where_the_best_two_are_a_hair_apart() -> None:
    logits = np.array([[1.0, 1.00001, 0.0], [3.0, 0.0, 0.0]], np.float32)
    assert parity.compare_shipped(logits, logits, [0, 0], logits, 1.0).passed
    assert not parity.compare_shipped(logits, logits, [0, 1], logits, 1.0).passed
    assert not parity.compare_shipped(logits, logits + np.array([0, 0.01, 0]), [0, 0], logits, 1.0).passed


def _swap_labels(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in folder.rglob("*.safetensors"):
        tensors = load_file(path)
        for name in tensors:
            if "classifier" in name:
                tensors[name] = tensors[name].roll(1, 0).contiguous()
        path.unlink()
        save_file(tensors, path, metadata={"format": "pt"})


def _drop_head(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "adapter" / "adapter_model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(path).items() if "classifier" not in name}
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})


def _refused(run: Path, hop: str) -> None:
    out = run.parent.parent / "out"
    with pytest.raises(StepFailed, match=f"The parity gate refused to ship. {hop}: "):
        bundles.ship(run, out)
    assert not [path for path in out.parent.iterdir() if "out" in path.name], "nothing is left"


@pytest.mark.slow
def test_an_export_with_permuted_labels_is_refused(own_run: Path, forge: Forge) -> None:
    forge(folder_of(own_run, result_of(own_run).rows[0].artifact), _swap_labels)
    _refused(own_run, "model → engine")


@pytest.mark.slow
def test_an_adapter_without_its_head_is_refused(own_run: Path, forge: Forge) -> None:
    forge(folder_of(own_run, result_of(own_run).searches[0].seeds[0].artifact), _drop_head)
    _refused(own_run, "tuned → merged")


@pytest.mark.slow
def test_answers_other_than_the_measured_ones_are_refused(own_run: Path) -> None:
    content = json.loads((own_run / "result.json").read_text())
    name = content["choice"]["picked"]
    content["predictions"][name] = [(index + 1) % 12 for index in content["predictions"][name]]
    (own_run / "result.json").write_text(json.dumps(content))
    _refused(own_run, "measured → bundle")


def test_rows_in_the_balance_are_not_held_against_an_engine() -> None:
    before = np.array([[4.0, 0.0], [0.0, 4.0], [2.0, 2.001], [2.001, 2.0], [2.0, 2.002]] * 10, np.float32)
    after = before.copy()
    after[2::5, 0] += 0.01
    after[3::5, 1] += 0.01
    hop = parity.compare("hop", before, after, None, 0.9)
    assert hop.passed
    assert (hop.agreement, hop.clear_rows, hop.clear_agreement) == (pytest.approx(0.6), 20, 1.0)
    after[0:20:5] = after[0:20:5, ::-1]
    assert not parity.compare("hop", before, after, None, 0.9).passed


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_unrelated_answers_are_broken_however_flat_they_are(scale: float) -> None:
    before = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32) * scale
    assert not parity.compare("hop", before, np.roll(before, 1, axis=-1), None, 0.9).passed
    assert not parity.compare("hop", before, before * 0, None, 0.9).passed
    assert parity.compare("hop", before, before + 0.02 * np.roll(before, 1) + 7, None, 0.9).passed
