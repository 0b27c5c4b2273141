"""What a fit's memory must be, before it starts, and how many rows may pass at once.

    weights      P · b + T · (6 · 4)                 starts, best epoch (two at a change), gradients, AdamW's two moments;
                                                     where b < 4 also masters and gradients in b, 6 bytes more
    activations  rows · width · L · (c · D + 3 · H · width) · b

P parameters of b bytes, T of them trained, L layers of D channels and H heads. c counts the tensors of [rows, width, D] that a
block keeps for its backward pass: about 17 by Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1), and 9 more where
adapters keep their inputs; 3 attention maps are those of eager attention. An estimate, on the high side.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trimtune.errors import StepFailed
from trimtune.process import memory_mb
from trimtune.tune.trainable import counts

if TYPE_CHECKING:
    import torch

KEPT = 26
PROCESS_MB = 450.0
"""torch, transformers and a small model's own working space"""
SHARE = 0.8
"""of the machine's memory that one fit may take"""


def needed_mb(model: Any, rows: int, width: int, dtype: torch.dtype) -> tuple[float, float]:
    """MB (10^6 bytes) of the weights with all that trains them, and of the activations of `rows` rows of `width` tokens."""
    size, config = counts(model), model.config
    weights = size["parameters"] * dtype.itemsize + size["trained_parameters"] * (30 if dtype.itemsize < 4 else 24)
    each = KEPT * config.hidden_size + 3 * config.num_attention_heads * width
    return PROCESS_MB + weights / 1e6, rows * width * config.num_hidden_layers * each * dtype.itemsize / 1e6


def rows_at_once(model: Any, batch_size: int, width: int, dtype: torch.dtype, limit_mb: float | None = None) -> int:
    """The most rows per forward pass that fit: `batch_size`, or a half, a quarter, … of it (the rest is accumulated).

    Raises:
        StepFailed: not even one row fits; says what would.
    """
    limit = limit_mb if limit_mb is not None else machine_mb()
    rows = batch_size
    while True:
        weights, activations = needed_mb(model, rows, width, dtype)
        if weights + activations <= limit:
            return rows
        if rows == 1:
            break
        rows = (rows + 1) // 2
    frozen = counts(model)["trained_parameters"] < counts(model)["parameters"] / 2
    advice = "a smaller model or a smaller `max_length`" if frozen else "a method that trains less, such as `lora`"
    raise StepFailed(f"out of memory, before it began: this fit needs about {weights:,.0f} MB for the weights and what trains "
                     f"them, and {activations:,.0f} MB per row of {width} tokens; it may take {limit:,.0f} MB. Use {advice}.")


def machine_mb() -> float:
    """What one process of a fit may take here: a share of the memory, divided among those that torchrun started."""
    return SHARE * memory_mb() / int(os.environ.get("LOCAL_WORLD_SIZE", 1))
