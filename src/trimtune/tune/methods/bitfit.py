"""BitFit: only the biases and the head learn; every weight matrix stays as it was.

Use it when few rows must not pull the model far from its base, and a merged model must cost nothing extra; not for
architectures without biases, nor when rows are plenty and the task is far from what the base knows.

    W x + b,  b: [D_out] learned, of linear layers and norms;  W: [D_out, D_in] frozen

Source: Ben Zaken et al. 2022 (arXiv 2106.10199), section 3; learning rates above those of full tuning (section 4). Weights
are saved whole, in float32. Refuses a model that has no biases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification",)
LEARNING_RATES = (1e-3, 5e-2)


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def prepare(model: torch.nn.Module, config: Config, task: str) -> torch.nn.Module:
    """The model with everything frozen but its biases and its head."""
    from trimtune.errors import TrimtuneError
    from trimtune.tune.trainable import head_of

    model.requires_grad_(False)
    biases = [parameter for name, parameter in model.named_parameters() if name.rsplit(".", 1)[-1] == "bias"]
    if not {*biases} - {*head_of(model).parameters()}:
        raise TrimtuneError(f"bitfit: {type(model).__name__} has no biases.",
                            "Allowed: models that have them, such as BERT.", "Use another method, such as `ia3` or `lora`.")
    for parameter in biases:
        parameter.requires_grad_(True)
    head_of(model).requires_grad_(True)
    return model
