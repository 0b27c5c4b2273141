"""Prompt tuning: trained embeddings stand before the text's own; nothing inside the network changes.

Use it when a task must be a few kilobytes, or to learn how much a frozen base already knows; not for small encoders that
must reach their best: it is the weakest of the adapters there, and it makes each text P tokens longer.

    f([P; E(x)]),  P: [P, D] learned, E the frozen embedding

Source: Lester et al. 2021 (arXiv 2104.08691), section 2; learning rates far above the usual ones (section 3). Saved in
PEFT's format with the head.
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

    virtual_tokens: int = Field(20, ge=1, le=512, description="number P of learned embeddings")


def prepare(model: torch.nn.Module, config: Config, task: str) -> torch.nn.Module:
    """A PEFT model whose prompt and head learn."""
    from peft import PromptTuningConfig, get_peft_model

    return get_peft_model(model, PromptTuningConfig(task_type=task, num_virtual_tokens=config.virtual_tokens))
