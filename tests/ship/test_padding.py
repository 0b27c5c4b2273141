"""The padded batch of the gate: int8 that ignores its mask is refused there, though the usual batches let it by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engines.small_classifier import small_classifier

from trimtune.engines import torch_eager
from trimtune.ship import label_gate, padding, parity
from trimtune.study import data
from trimtune.tasks import text_classification as task

TASK = "text_classification"
TEXTS = ["I was charged twice", "hello", "the export to our CRM fails since the last update, any idea why that could be?", "no"]


def test_masked_places_hold_other_rows_tokens_and_no_row_changes(tmp_path: Path) -> None:
    tokenizer = task.load_tokenizer(small_classifier(tmp_path))
    alone = task.encode(tokenizer, TEXTS, 64)
    for most in (64, alone["input_ids"].shape[1]):
        found = padding.batch(task, tokenizer, TEXTS, most)
        assert found["input_ids"].shape == found["attention_mask"].shape == (4, min(most, 2 * alone["input_ids"].shape[1]))
        np.testing.assert_array_equal(found["attention_mask"].sum(1), alone["attention_mask"].sum(1))
        for row in range(4):
            real, own = found["attention_mask"][row] == 1, alone["attention_mask"][row] == 1
            np.testing.assert_array_equal(found["input_ids"][row][real], alone["input_ids"][row][own])
            assert (found["input_ids"][row][~real] != tokenizer.pad_token_id).all()
    tokenizer.padding_side = "left"
    assert padding.batch(task, tokenizer, TEXTS, 64)["attention_mask"][:, -1].all()


@pytest.mark.slow
def test_int8_that_ignores_its_mask_is_refused(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    torch_eager.export(tmp_path, tuned("full"), {}, "int8", [], 64)
    texts = parity.evenly(data.load(helpdesk_rows).validation.texts, padding.ROWS)
    model = padding.model(tuned("full"), TASK, texts, 64)
    whole = label_gate.engine_hop("torch_eager", "int8", "int8", model, padding.engine(tmp_path, "torch_eager", TASK, texts, 64))
    assert whole.passed, whole
    load: Callable[..., Any] = torch_eager.load

    def unmasked(folder: Path, threads: int) -> Any:
        run = load(folder, threads)
        return lambda inputs: run({**inputs, "attention_mask": np.ones_like(inputs["attention_mask"])})

    monkeypatch.setattr(torch_eager, "load", unmasked)
    broken = label_gate.engine_hop("torch_eager", "int8", "int8", model, padding.engine(tmp_path, "torch_eager", TASK, texts, 64))
    assert not broken.passed, broken
    assert "torch_eager" in str(broken)
