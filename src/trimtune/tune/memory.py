"""What a fit's memory must be, before it starts, and how many rows may pass at once.

    weights      P · b + T · (6 · 4)                 starts, best epoch (two at a change), gradients, AdamW's two moments;
                                                     where b < 4 also masters and gradients in b, 6 bytes more
    packed       buffers + U · b                     weights that are held in fewer bits, and U of the largest layer unpacked
    activations  rows · width · L · (c · D + 3 · H · width) · b
        or, recomputed,  rows · width · (L · D + c · D + 3 · H · width) · b

P parameters of b bytes, T of them trained, L layers of D channels and H heads. c counts the tensors of [rows, width, D] that a
block keeps for its backward pass: about 17 by Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1), and 9 more where
adapters keep their inputs; 3 attention maps are those of eager attention. A method's virtual tokens are part of the width.
An estimate.

Recomputed: a block keeps its input alone and is run again for its backward pass (activation checkpointing, Chen et al. 2016,
arXiv 1604.06174): the same gradients for about a third more time, so it is the last resort.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtune.errors import StepFailed
from trimtune.tune import device, packed
from trimtune.tune.parallel import held
from trimtune.tune.trainable import counts

if TYPE_CHECKING:
    import torch

KEPT = 26
PROCESS_MB = 850.0
"""torch, transformers, 400 MB allowed for the kernels that oneDNN builds for all widths, and a small model's own working space"""
SHARE = 0.8
"""of the machine's (or the GPU's) memory that one fit may take"""


def needed_mb(model: Any, rows: int, width: int, dtype: torch.dtype, recomputed: bool = False) -> tuple[float, float]:
    """MB (10^6 bytes) of the weights with all that trains them, and of the activations of `rows` rows of `width` tokens."""
    config, trained_too, width = model.config, 30 if dtype.itemsize < 4 else 24, width + virtual_tokens(model)
    weights = sum(held(parameter).numel() * (dtype.itemsize + trained_too * parameter.requires_grad)
                  for parameter in model.parameters())
    weights += sum(buffer.nbytes for buffer in model.buffers()) + packed.largest(model) * dtype.itemsize
    block, blocks = KEPT * config.hidden_size + 3 * config.num_attention_heads * width, config.num_hidden_layers
    each = blocks * config.hidden_size + block if recomputed else blocks * block
    return PROCESS_MB + weights / 1e6, rows * width * each * dtype.itemsize / 1e6


def rows_at_once(model: Any, batch_size: int, width: int, dtype: torch.dtype, limit_mb: float | None = None) -> int:
    """The most rows per forward pass that fit: `batch_size`, or a half, a quarter, … of it (the rest is accumulated).

    Where not even one row fits, the model is made to recompute its blocks, if it can.

    Raises:
        StepFailed: that is too much as well; says what would fit.
    """
    limit = _limit_mb() if limit_mb is None else limit_mb
    for recomputed in (False, True) if _can_recompute(model) else (False,):
        rows = batch_size
        while sum(needed_mb(model, rows, width, dtype, recomputed)) > limit and rows > 1:
            rows = (rows + 1) // 2
        weights, activations = needed_mb(model, rows, width, dtype, recomputed)
        if weights + activations <= limit:
            if recomputed:
                recompute(model)
            return rows
    frozen = counts(model)["trained_parameters"] < counts(model)["parameters"] / 2
    advice = "a smaller model or a smaller `max_length`" if frozen else "a method that trains less, such as `lora`"
    raise StepFailed(f"out of memory, before it began: this fit needs about {weights:,.0f} MB for the weights and what trains "
                     f"them, and {activations:,.0f} MB per row of {width} tokens; it may take {limit:,.0f} MB. Use {advice}.")


def rows_answered(at_once: int, batch_size: int) -> int:
    """Rows per forward pass for a fit's validation: two batches, or where a fit has to take its batches in pieces, one piece."""
    return at_once if 0 < at_once < batch_size else 2 * batch_size


def rows_alone(model: Any, batch_size: int, width: int, dtype: torch.dtype, limit_mb: float | None = None) -> int:
    """The most rows that a pass without gradients, which holds one block at a time, can answer together: a batch, a half, …"""
    rows, limit = batch_size, _limit_mb() if limit_mb is None else limit_mb
    while sum(needed_mb(model, rows, width, dtype, recomputed=True)) > limit and rows > 1:
        rows = (rows + 1) // 2
    return rows


def _limit_mb() -> float:
    return SHARE * device.limit_mb(device.here())


def virtual_tokens(model: Any) -> int:
    """The tokens that a method learns and puts before each row."""
    return sum(getattr(settings, "num_virtual_tokens", None) or 0 for settings in getattr(model, "peft_config", {}).values())


def recompute(model: Any) -> None:
    """Make each block of a transformers model forget its activations and run again when its backward pass needs them."""
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def _can_recompute(model: Any) -> bool:
    """A trained prefix enters the blocks as a cache, which transformers drops when it recomputes; on Apple's GPUs torch
    would draw other dropout the second time."""
    kinds = [str(settings.peft_type) for settings in getattr(model, "peft_config", {}).values()]
    supported = getattr(model, "supports_gradient_checkpointing", False) and device.of(model).type != "mps"
    return supported and not any("PREFIX" in kind for kind in kinds)
