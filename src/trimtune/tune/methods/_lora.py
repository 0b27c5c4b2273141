"""What LoRA's kin share: their settings, and the layers that they go beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch


class Shared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = Field(8, ge=1, le=1024, description="rank of the update")
    alpha: float = Field(16.0, gt=0, description="the update is scaled by alpha / r")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the adapter's input while tuning")
    targets: str | list[str] = Field("all-linear", description="`all-linear`, or names of layers such as [query, value]")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="which biases learn too")
    layers: int | None = Field(None, ge=1, le=1000, description="adapt only so many of the upper layers; null: all of them")
    rslora: bool = Field(False, description="scale the update by alpha / sqrt(r)")


def attach(model: torch.nn.Module, config: Shared, task: str, method: str, **more: Any) -> torch.nn.Module:
    """A PEFT model whose adapters and head learn; `more` is for PEFT's LoraConfig.

    Raises:
        TrimtuneError: no layer is called as `targets` say.
    """
    from peft import LoraConfig, get_peft_model

    from trimtune.errors import TrimtuneError
    from trimtune.tune.layers import linear_names

    bias: Any = config.bias
    targets = config.targets if config.layers is None else _in_top(model, config.layers, config.targets, method)
    settings = LoraConfig(task_type=task, r=config.r, lora_alpha=config.alpha, lora_dropout=config.dropout,
                          target_modules=targets, bias=bias, use_rslora=config.rslora, **more)
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        raise TrimtuneError(f"{method}: targets {config.targets} fit no layer of this model ({str(error).splitlines()[0]}).",
                            f"Its linear layers: {', '.join(linear_names(model))}.",
                            "Name some of these, or use `all-linear`.") from None


def _in_top(model: torch.nn.Module, layers: int, targets: str | list[str], method: str) -> list[str]:
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
        raise TrimtuneError(f"{method}: targets {targets} fit no layer among the top {layers}.",
                            f"The linear layers there: {', '.join(sorted({name.rsplit('.', 1)[-1] for name in linear}))}.",
                            "Name some of these, or use `all-linear`.")
    return chosen
