"""QLoRA: LoRA beside a base that is frozen in 4 bits, two weights to a byte, unpacked for one layer at a time.

Use it when the base's weights are what doesn't fit into memory: its linear layers then take 0.52 to 0.56 bytes per weight
instead of 2 or 4. Not where they do fit: LoRA is then as fast, and its base is not rounded. Activations are those of LoRA, and in
a small model they are most of a fit's memory.

    y = x W_nf4ᵀ + b + (α / r) · (dropout(x) Aᵀ) Bᵀ,  W_nf4[i] = s[block of i] · v[code of i],  v: 16 values, blocks of 64

Source: Dettmers et al. 2023 (arXiv 2305.14314), sections 2 and 3. x is [B, T, D_in], A: [r, D_in] random, B: [D_out, r] zero.
Gradients pass through W_nf4 and nothing in it learns. `double_quantization` stores the scales s in 8 bits around their mean (the
paper in 8-bit floats, this in integers). Embeddings, norms, biases and the output layer keep the fit's number format.

The tuned model is what was tuned: its folder holds the base as NF4 rounds it, in plain float32, and beside it the adapter in
PEFT's format, so that merging, engines and plain peft see the numbers that the adapter was learned on. The adapter does not
belong to the base before rounding. The file is no smaller for it: that is what the trims are for.

A checkpoint in float32 is read from its file layer by layer; one in another format becomes float32 first, so that fit needs four
bytes per weight once, before its first step. Refuses a model without plain linear layers (`nn.Linear`, GPT-2's Conv1D); experts
held as one tensor stay as they are. On a GPU bitsandbytes unpacks if it is installed; that has not run on one yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from trimtune.tune.methods import _lora

if TYPE_CHECKING:
    import torch

TASKS = ("causal_lm",)
LEARNING_RATES = (5e-4, 1e-2)


class Config(_lora.Shared):
    double_quantization: bool = Field(True, description="the scales in 8 bits too: 4.13 bits per weight instead of 4.5")


def prepare(model: torch.nn.Module, config: Config, task: str) -> torch.nn.Module:
    """A PEFT model whose adapters learn, and whose other linear layers are packed.

    Raises:
        TrimtuneError: it has none that could be packed.
    """
    from trimtune.errors import TrimtuneError
    from trimtune.tune.packed import pack

    adapted: Any = _lora.attach(model, config, task, "qlora")
    if not pack(adapted.get_base_model(), config.double_quantization):
        raise TrimtuneError(f"qlora: {type(model).__name__} has no plain linear layers that could be packed.",
                            "It packs torch.nn.Linear and GPT-2's Conv1D.", "Use `lora`, or another model.")
    ready: torch.nn.Module = adapted
    return ready
