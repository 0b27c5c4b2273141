"""IA³: learned scales on keys, values and feed-forward activations; merged into the weights afterwards.

Use it when a task must be some ten kilobytes beside its head and inference must cost nothing; not when the task is far from
what the base knows: it can turn features up and down, not make new ones, and full tuning or LoRA is then better.

    k' = l_k ⊙ k,  v' = l_v ⊙ v,  h' = l_ff ⊙ h before the output layer,  l: [D] or [D_ff], ones at first;  W frozen

Source: Liu et al. 2022 (arXiv 2205.05638), section 3.3. Which layers these are in an architecture is PEFT's list, unless
`targets` names them; for BERT it scales the input of the attention's output layer too. Scales and head are saved in
PEFT's format. Refuses an architecture that PEFT doesn't know and `targets` that the model doesn't have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification", "causal_lm")
LEARNING_RATES = (5e-3, 2e-1)


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    targets: list[str] = Field([], description="names of layers to scale; empty: those that PEFT knows for the architecture")
    feedforward: list[str] = Field([], description="those of `targets` whose input is scaled instead of their output")


def prepare(model: torch.nn.Module, config: Config, task: str) -> torch.nn.Module:
    """A PEFT model whose scales and head learn."""
    from peft import IA3Config, get_peft_model

    from trimtune.errors import TrimtuneError
    from trimtune.tune.layers import linear_names

    if config.feedforward and not config.targets:
        raise TrimtuneError(f"ia3: feedforward {config.feedforward} was given without targets.",
                            "`feedforward` says which of `targets` are scaled at their input.", "Name both, or neither.")
    named = {"target_modules": config.targets, "feedforward_modules": config.feedforward} if config.targets else {}
    try:
        return get_peft_model(model, IA3Config(task_type=task, **named))
    except ValueError as error:
        raise TrimtuneError(f"ia3: targets {config.targets} don't fit this model ({str(error).splitlines()[0]}).",
                            f"Its linear layers: {', '.join(linear_names(model))}.",
                            "Name its keys, values and feed-forward outputs; the latter under `feedforward` too.") from None
