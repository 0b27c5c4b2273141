"""LoRA: low-rank updates beside frozen linear layers; merged into them afterwards, so inference costs nothing.

Use it as the first thing to try: near full tuning with a fraction of its trained weights and of the memory that these take
(in a small model activations take more), and a task is a file of a few megabytes.
Not when the task is far from what the base knows and rows are plenty: full tuning then wins.

    W' x = W x + (α / r) · B A · dropout(x),  A: [r, D_in] random, B: [D_out, r] zero;  W frozen

Source: Hu et al. 2022 (arXiv 2106.09685), section 4.1 (the paper adapts q and v: `targets: [query, value]`); all linear
layers as default after Dettmers et al. 2023 (arXiv 2305.14314), section 4. Adapter and head are saved in PEFT's format.
Refuses target names that the model doesn't have.

`dora` learns a length m: [D_out] and a direction, W' = m · V / ‖V‖ with V = W + (α / r) B A, norms by row (Liu et al. 2024,
arXiv 2402.09353, section 4): often better at small r, and slower to fit. `rslora` scales by α / √r instead, so that a large
r still learns (Kalajdzievski 2023, arXiv 2312.03732). `init` starts B A at the largest singular values of W (`pissa`, Meng
et al. 2024, arXiv 2404.02948, section 3) or at its QR factors (`olora`, Büyükakyüz 2024, arXiv 2406.01775), and freezes
the rest of W; what is saved is the difference to that start, a plain LoRA of rank 2r for the untouched base.
`layers: k` adapts the top k layers only: the states that enter them are then computed once, as for `top_k_layers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from trimtune.tune.methods import _lora

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification", "causal_lm")
LEARNING_RATES = (5e-4, 1e-2)


class Config(_lora.Shared):
    dora: bool = Field(False, description="learn each row's length apart from its direction")
    init: Literal["default", "pissa", "olora"] = Field("default", description="where the update starts: at zero, or in W itself")


def top_layers(config: Config) -> int | None:
    """How many of the upper layers learn while all below stays as it is; None: more than these learn."""
    return None if config.bias == "all" else config.layers


def prepare(model: torch.nn.Module, config: Config, task: str) -> torch.nn.Module:
    """A PEFT model whose adapters and head learn."""
    init: Any = config.init == "default" or config.init
    return _lora.attach(model, config, task, "lora", use_dora=config.dora, init_lora_weights=init)
