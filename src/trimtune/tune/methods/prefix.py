"""Prefix tuning: trained keys and values stand before every layer's own; the network itself is frozen.

Use it when one frozen base serves many tasks at once and each task must be tiny; not when latency on short texts counts
(each layer attends to P more positions) or when a merged model is needed: a prefix can't be folded into weights.

    attention(Q, [P_K; K], [P_V; V]),  P_K, P_V: [layers, P, D] learned

Source: Li & Liang 2021 (arXiv 2101.00190), section 4; for classification P-tuning v2, Liu et al. 2022 (arXiv 2110.07602).
The prefix is learned directly unless `projection` is set (the paper's MLP reparametrization). Saved in PEFT's format
with the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification", "causal_lm")
LEARNING_RATES = (3e-3, 1e-1)


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    virtual_tokens: int = Field(20, ge=1, le=512, description="length P of the prefix")
    projection: bool = Field(False, description="learn the prefix through a two-layer network, as in the paper")


def prepare(model: torch.nn.Module, config: Config, task: str) -> torch.nn.Module:
    """A PEFT model whose prefix and head learn."""
    from peft import PrefixTuningConfig, get_peft_model

    return get_peft_model(model, PrefixTuningConfig(task_type=task, num_virtual_tokens=config.virtual_tokens,
                                                    prefix_projection=config.projection))
