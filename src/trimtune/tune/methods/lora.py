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

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification", "causal_lm")
LEARNING_RATES = (5e-4, 1e-2)


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = Field(8, ge=1, le=1024, description="rank of the update")
    alpha: float = Field(16.0, gt=0, description="the update is scaled by alpha / r")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the adapter's input while tuning")
    targets: str | list[str] = Field("all-linear", description="`all-linear`, or names of layers such as [query, value]")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="which biases learn too")
    layers: int | None = Field(None, ge=1, le=1000, description="adapt only so many of the upper layers; null: all of them")
    dora: bool = Field(False, description="learn each row's length apart from its direction")
    rslora: bool = Field(False, description="scale the update by alpha / sqrt(r)")
    init: Literal["default", "pissa", "olora"] = Field("default", description="where the update starts: at zero, or in W itself")


def top_layers(config: Config) -> int | None:
    """How many of the upper layers learn while all below stays as it is; None: more than these learn."""
    return None if config.bias == "all" else config.layers


def prepare(model: torch.nn.Module, config: Config, task: str) -> torch.nn.Module:
    """A PEFT model whose adapters and head learn."""
    from peft import LoraConfig, get_peft_model

    from trimtune.errors import TrimtuneError
    from trimtune.tune.layers import linear_names

    bias: Any = config.bias
    targets = config.targets if config.layers is None else _in_top(model, config.layers, config.targets)
    init: Any = config.init == "default" or config.init
    settings = LoraConfig(task_type=task, r=config.r, lora_alpha=config.alpha, lora_dropout=config.dropout,
                          target_modules=targets, bias=bias, use_dora=config.dora, use_rslora=config.rslora,
                          init_lora_weights=init)
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        raise TrimtuneError(f"lora: targets {config.targets} fit no layer of this model ({str(error).splitlines()[0]}).",
                            f"Its linear layers: {', '.join(linear_names(model))}.",
                            "Name some of these, or use `all-linear`.") from None


def _in_top(model: torch.nn.Module, layers: int, targets: str | list[str]) -> list[str]:
    """The targets' full names in the top layers and the pooler; a head learns whole, an output layer not at all."""
    import torch
    from transformers.pytorch_utils import Conv1D

    from trimtune.errors import TrimtuneError
    from trimtune.tune.layers import after_backbone, top

    answering = {module for part in after_backbone(model) for module in part.modules()}
    upper = {module for part in top(model, layers) for module in part.modules()} - answering
    linear = [name for name, module in model.named_modules() if module in upper and isinstance(module, torch.nn.Linear | Conv1D)]
    wanted = [targets] if isinstance(targets, str) else targets
    chosen = linear if targets == "all-linear" else [name for name in linear if name.rsplit(".", 1)[-1] in wanted]
    if not chosen:
        raise TrimtuneError(f"lora: targets {targets} fit no layer among the top {layers}.",
                            f"The linear layers there: {', '.join(sorted({name.rsplit('.', 1)[-1] for name in linear}))}.",
                            "Name some of these, or use `all-linear`.")
    return chosen
