"""The check that keeps wrong exports out, and the timing that chooses a precision."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtune.engines import _graph, torch_eager
from trimtune.errors import StepFailed
from trimtune.tasks import text_classification as task


def waiting(milliseconds: float) -> _graph.Run:
    def run(inputs: dict[str, np.ndarray]) -> Any:
        time.sleep(milliseconds / 1000)

    return run


def test_the_faster_wins_and_a_near_tie_stays_with_the_first() -> None:
    chosen, milliseconds = _graph.fastest({"fp32": waiting(8), "bf16": waiting(4)}, 100, 32)
    assert chosen == "bf16"
    assert milliseconds["fp32"][0] >= 8 > milliseconds["bf16"][0] >= 4
    assert _graph.fastest({"fp32": waiting(10), "bf16": waiting(9.5)}, 100, 32)[0] == "fp32"
    assert _graph.fastest({"fp32": waiting(4), "bf16": waiting(9)}, 100, 32)[0] == "fp32"


@pytest.mark.slow
def test_a_graph_that_ignores_the_mask_is_refused(tuned: Callable[[str], Path]) -> None:
    model: Any = task.load_model(tuned("full"))
    right = torch_eager._runner(model)
    assert _graph.check(right, model, 24, 1e-4, "mine") <= 1e-4

    def unmasked(inputs: dict[str, np.ndarray]) -> Any:
        return right({**inputs, "attention_mask": np.ones_like(inputs["attention_mask"])})

    with pytest.raises(StepFailed, match=r"mine: the exported graph answers differently .*\|Δlogit\| .*allowed 0.0001"):
        _graph.check(unmasked, model, 24, 1e-4, "mine")
    with pytest.raises(StepFailed):
        _graph.check(lambda inputs: right(inputs) * np.nan, model, 24, 1e-4, "mine")


@pytest.mark.slow
def test_a_format_that_answers_too_differently_is_left_out_and_the_first_is_refused(tuned: Callable[[str], Path]) -> None:
    model: Any = task.load_model(tuned("full"))
    right = torch_eager._runner(model)

    def off(inputs: dict[str, np.ndarray]) -> Any:
        return right(inputs) + 0.5

    runs, allowed = {"fp32": right, "fp16": off, "bf16": right}, {"fp32": 1e-3, "fp16": 0.1, "bf16": 0.25}
    differences, left_out = _graph.passing(runs, model, 24, allowed, "mine")
    assert list(differences) == ["fp32", "bf16"]
    assert list(left_out) == ["fp16"]
    assert left_out["fp16"].startswith("mine in fp16: ")
    assert "|Δlogit| 0.5, allowed 0.1" in left_out["fp16"]
    with pytest.raises(StepFailed, match="mine in fp16"):
        _graph.passing({"fp16": off}, model, 24, allowed, "mine")


def test_padded_rows_have_a_token_each_and_the_first_is_whole() -> None:
    mask = _graph.rows(9, 40, 1000, padded=True)["attention_mask"]
    assert mask[0].all()
    assert (mask[:, 0] == 1).all()
    assert not mask.all()
    assert (np.diff(mask, axis=1) <= 0).all(), "padding stands on the right"
