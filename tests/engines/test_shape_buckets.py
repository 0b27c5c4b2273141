"""Buckets of shapes: none is missed and none is in two, whatever the study's and the model's lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtune.engines._shape_buckets import buckets, fitting, longest_row
from trimtune.tasks import text_classification as task


@pytest.mark.parametrize(("batch", "max_length", "longest"), [(4, 48, 64), (4, 16, 64), (1, 64, 64), (8, 100, 40), (2, 32, 33)])
def test_every_shape_lies_in_one_bucket(batch: int, max_length: int, longest: int) -> None:
    found = buckets(batch, max_length, longest)
    for rows in range(1, batch + 1):
        for tokens in range(1, longest + 1):
            holding = [at for at, (low, _, high) in enumerate(found)
                       if low[0] <= rows <= high[0] and low[1] <= tokens <= high[1]]
            assert holding == [fitting(found, rows, tokens)], (rows, tokens)
    assert fitting(found, batch + 1, 1) is None
    assert fitting(found, 1, longest + 1) is None
    for smallest, usual, largest in found:
        assert all(low <= often <= high for low, often, high in zip(smallest, usual, largest, strict=True))


def test_one_row_and_short_rows_have_their_own() -> None:
    found = buckets(32, 64, 512)
    assert len(found) == 6
    assert found[fitting(found, 1, 12) or 0].largest == (1, 32)
    assert found[fitting(found, 2, 40) or 0].largest == (32, 64)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "most"), [("full", 512), ("prompt", 492), ("prefix", 492)])
def test_virtual_tokens_take_positions(kind: str, most: int, tuned: Callable[[str], Path]) -> None:
    import torch

    model: Any = task.load_model(tuned(kind))
    assert longest_row(model, 64) == most
    with torch.inference_mode():
        for tokens in (most, most + 1):
            inputs = {"input_ids": torch.full((1, tokens), 1000), "attention_mask": torch.ones(1, tokens, dtype=torch.long)}
            if tokens == most:
                assert model(**inputs).logits.isfinite().all()
            else:
                with pytest.raises((IndexError, RuntimeError)):
                    model(**inputs)
