"""P-tuning: the embeddings that stand before the text's own come out of a small network, which learns them more steadily.

Use it where prompt tuning learns too slowly or depends on the seed too much; not when latency on short texts counts
(each text is P tokens longer) or when a merged model is needed: a prompt can't be folded into weights.

    f([g(P); E(x)]),  P: [P, D] learned, g: [P, D] → [P, D] an MLP or a bidirectional LSTM, E the frozen embedding

Source: Liu et al. 2021 (arXiv 2103.10385), section 3; the network is for fitting only: what is saved, in PEFT's format
and with the head, is g(P).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification", "causal_lm")
LEARNING_RATES = (1e-2, 5e-1)


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    virtual_tokens: int = Field(20, ge=1, le=512, description="number P of learned embeddings")
    encoder: Literal["mlp", "lstm"] = Field("mlp", description="the network that the embeddings come out of")
    hidden: int | None = Field(None, ge=1, le=8192, description="its width; null: the model's own width D")


def prepare(model: torch.nn.Module, config: Config, task: str) -> torch.nn.Module:
    """A PEFT model whose prompt, its network and the head learn."""
    from peft import PromptEncoderConfig, get_peft_model

    kind: Any = config.encoder.upper()
    return get_peft_model(model, PromptEncoderConfig(task_type=task, num_virtual_tokens=config.virtual_tokens,
                                                     encoder_reparameterization_type=kind, encoder_hidden_size=config.hidden))
