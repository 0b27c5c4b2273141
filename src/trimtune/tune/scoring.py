"""A tuned model's score on rows that its fit didn't see, in plain PyTorch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.tune import memory
from trimtune.tune.feeds import token_feed
from trimtune.tune.loop import scored

_TOGETHER = 64


def score_model(folder: Path, model: Path, rows: Path, split: str, max_length: int, task: str,
                reading: dict[str, Any] | None = None) -> dict[str, Any]:
    """Work of a store step: a model folder's mean score on one split, as fits are scored. Writes nothing into `folder`.

    Returns:
        facts: `score` (accuracy, or nats per learned token) and `n` (rows, or learned tokens).

    Raises:
        StepFailed: its answers are no finite numbers.
    """
    import torch

    part = parts.load("task", task)
    network, read = part.load_model(model), part.rows.load(rows)
    inputs = part.inputs(part.load_tokenizer(model), getattr(read, split), max_length, split, **reading or {})
    if hasattr(part, "split_off"):
        part.split_off(network)
    together = memory.rows_alone(network, _TOGETHER, max(map(len, inputs.ids)), torch.float32)
    score = scored(network, token_feed(network, part, inputs), part.score, together)
    if not math.isfinite(score):
        raise StepFailed("it gives answers that are not finite numbers")
    return {"score": score, "n": sum(inputs.counts)}
