"""Full fine-tuning: every weight of the model learns.

Use it when quality comes first and a copy of the whole model per task is no burden; not when several tasks must share
one base, or when the rows are so few that the model forgets more than it learns.

    θ ← θ − η · AdamW(∇_θ L(θ))

Source: Devlin et al. 2019 (BERT), section 4: learning rates of 2e-5 to 5e-5 at batch 16 to 32; small encoders like more.
Trains every parameter, shapes as in the base; embeddings too. Weights are saved whole, in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification", "causal_lm")
LEARNING_RATES = (2e-5, 1e-3)


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    dropout: float = Field(0.0, ge=0, lt=1, description="dropout inside the blocks and before the head while tuning")


def prepare(model: torch.nn.Module, config: Config, task: str) -> torch.nn.Module:
    """The same model with every parameter set to learn."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = config.dropout
    return model.requires_grad_(True)
