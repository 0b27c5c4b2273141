"""Top layers: the upper k layers, what follows them and the head learn; all below is frozen.

Use it when full tuning takes too long or forgets too much, and a whole copy of the upper model per task is no burden; not
when the task differs from the base's in its words rather than in its meaning: the lower layers can't follow.

    h = f_1..n-k(x) frozen,  logits = head(f_n-k+1..n(h)),  h: [B, T, D]

Source: Howard & Ruder 2018 (arXiv 1801.06146), section 3.3 (upper layers first); for BERT Lee et al. 2019 (arXiv 1911.03090),
section 4. The states h of all rows are computed once and shared by all epochs and trials, where they fit into memory.
Weights are saved whole, in float32. Refuses a model with fewer than k layers, or with one that runs many times (ALBERT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification", "causal_lm")
LEARNING_RATES = (5e-5, 5e-3)


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(2, ge=1, le=1000, description="how many of the upper layers learn")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout inside the layers that learn and before the head while tuning")


def top_layers(config: Config) -> int:
    """How many of the upper layers learn; all below stays as it is."""
    return config.k


def prepare(model: torch.nn.Module, config: Config, task: str) -> torch.nn.Module:
    """The model with everything frozen below its top k layers."""
    import torch

    from trimtune.tune.layers import top

    model.requires_grad_(False)
    for part in top(model, config.k):
        part.requires_grad_(True)
        for module in part.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = config.dropout
    return model
