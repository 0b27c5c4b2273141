"""Head only: the pretrained network is a fixed feature extractor, and only the classifier on top of it learns.

Use it when tuning must take seconds or when one network must serve many tasks; not when the classes differ in ways that
the pretrained features don't show: it is the cheapest method and mostly the weakest.

    logits = W · f(x) + b,  f frozen,  W: [C, D], b: [C]

Source: linear probing, Alain & Bengio 2016 (arXiv 1610.01644), section 3. The features f(x) [N, D] of all rows are
computed once and shared by all trials; an epoch over them costs milliseconds, hence `passes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification",)
LEARNING_RATES = (1e-3, 1e-1)
ON_FEATURES = True


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    passes: int = Field(10, ge=1, le=1000, description="passes over the stored features per epoch of the study")


def prepare(model: torch.nn.Module, config: Config, task: str) -> torch.nn.Module:
    """The model with everything frozen but its head."""
    from trimtune.tune.trainable import head_of

    model.requires_grad_(False)
    head_of(model).requires_grad_(True)
    return model
