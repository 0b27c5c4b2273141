"""LoRA: low-rank updates beside frozen linear layers; merged into them afterwards, so inference costs nothing.

Use it as the first thing to try: near full tuning at a fraction of its memory, and a task is a file of a few megabytes.
Not when the task is far from what the base knows and rows are plenty: full tuning then wins.

    W' x = W x + (α / r) · B A · dropout(x),  A: [r, D_in] random, B: [D_out, r] zero;  W frozen

Source: Hu et al. 2022 (arXiv 2106.09685), section 4.1 (the paper adapts q and v: `targets: [query, value]`); all linear
layers as default after Dettmers et al. 2023 (arXiv 2305.14314), section 4. Adapter and head are saved in PEFT's format.
Refuses target names that the model doesn't have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification",)
LEARNING_RATES = (5e-4, 1e-2)


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = Field(8, ge=1, le=1024, description="rank of the update")
    alpha: float = Field(16.0, gt=0, description="the update is scaled by alpha / r")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the adapter's input while tuning")
    targets: str | list[str] = Field("all-linear", description="`all-linear`, or names of layers such as [query, value]")
    bias: str = Field("none", pattern="^(none|all|lora_only)$", description="which biases learn too: none, all, lora_only")


def prepare(model: torch.nn.Module, config: Config, task: str) -> torch.nn.Module:
    """A PEFT model whose adapters and head learn."""
    from peft import LoraConfig, get_peft_model

    from trimtune.errors import TrimtuneError

    bias: Any = config.bias
    settings = LoraConfig(task_type=task, r=config.r, lora_alpha=config.alpha, lora_dropout=config.dropout,
                          target_modules=config.targets, bias=bias)
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        import torch

        linear = sorted({name.rsplit(".", 1)[-1] for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)})
        raise TrimtuneError(f"lora: targets {config.targets} fit no layer of this model ({str(error).splitlines()[0]}).",
                            f"Its linear layers: {', '.join(linear)}.", "Name some of these, or use `all-linear`.") from None
