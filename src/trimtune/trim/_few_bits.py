"""What `binary` and `ternary` share: layers whose weights lie on a grid of two or three values, and a fit that moves them there.

    y = x Ŵᵀ + b,  Ŵ = quantize(W)      forward: the layer multiplies with weights on the grid
    ∂L/∂W := ∂L/∂Ŵ                      backward, straight through: the latent W learns as if nothing had been rounded

The scales are numbers of bfloat16, so that grid, fit in bf16, 16 bits on disk and any loader agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from trimtune import parts
from trimtune.errors import StepFailed, TrimtuneError
from trimtune.trim._model_folder import base_of, load, write
from trimtune.trim._recovered import recovered
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch

    Quantize = Callable[[torch.Tensor], torch.Tensor]
    """float32 weights [N, K] to the nearest ones on the grid, [N, K]"""

GRID = "trimtune_grid"
"""the key of config.json that tells the `group` of weights which share a scale"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    group: int = Field(128, ge=0, description="inputs of an output channel that share a scale; 0, or where it does not divide "
                                              "them: all inputs")
    epochs: int = Field(3, ge=0, le=100, description="passes of the fit over the training rows; 0 leaves it out")
    learning_rate: float = Field(5e-4, gt=0, le=1, description="of the fit, which trains every weight")
    teacher: float = Field(0.5, ge=0, le=1, description="share of the fit's loss that the parent's answers give")


def trim(folder: Path, source: Path, config: dict[str, Any], setting: Setting, quantize: Callable[..., torch.Tensor],
         name: str) -> dict[str, Any]:
    """Fit a model whose blocks multiply with weights on the grid; write it as plain float32 weights that lie there.

    Args:
        quantize: of weights [N, K] and `group`.

    Returns:
        `matrices` and `weights` on the grid, the `zeros` among them (a share), `group`, and the `recovery` fit's facts.

    Raises:
        TrimtuneError: the model has no plain linear layers in its blocks.
    """
    wanted, task = Config.model_validate(config), parts.load("task", setting.task)
    module = load(source, task, attention="eager")
    layers = matrices(base_of(module), name)
    put_on_grid(layers.values(), lambda weight_NK: quantize(weight_NK, wanted.group))
    recovery = recovered(module, source, folder, wanted, setting)
    leave_on_grid(layers.values())
    setattr(base_of(module).config, GRID, {"group": wanted.group})
    write(module, source, folder, task=task)
    weights = sum(layer.weight.numel() for layer in layers.values())
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers.values())
    return {"matrices": len(layers), "weights": weights, "zeros": round(zeros / weights, 4), "group": wanted.group,
            "recovery": recovery}


def linears(base: Any) -> dict[str, torch.nn.Linear]:
    """The linear layers of a transformers model by name, without its head."""
    import torch

    return {f"{base.base_model_prefix}.{inner}": layer for inner, layer in base.base_model.named_modules()
            if isinstance(layer, torch.nn.Linear)}


def matrices(base: Any, name: str) -> dict[str, torch.nn.Linear]:
    """The linear layers inside the numbered blocks of a transformers model, by name; not its pooler, nor its head.

    Args:
        name: of what asks, for the message.

    Raises:
        TrimtuneError: there are none.
    """
    inside = len(base.base_model_prefix) + 1
    found = {full: layer for full, layer in linears(base).items() if any(word.isdigit() for word in full[inside:].split("."))}
    if not found:
        raise TrimtuneError(f"{name}: {type(base).__name__} has no plain linear layers in its blocks.",
                            "It changes torch.nn.Linear (BERT, DistilBERT, RoBERTa, ELECTRA, Llama …) and what trims make it of.",
                            f"Leave {name} out of `trim`, or use a model such as `minilm`.")
    return found


def formats_of(base: Any, engine: str) -> tuple[dict[str, str], int]:
    """The format of each linear layer by name as the trim `mixed` left it, and how many inputs share a scale in the low one.

    Raises:
        StepFailed: config.json does not name them all; `engine` is what asks.
    """
    grid = getattr(base.config, GRID, {"group": 0})
    formats: dict[str, str] = grid.get("formats", {})
    if formats.keys() != linears(base).keys():
        raise StepFailed(f"{engine}: config.json does not name the format of each linear layer, as the trim mixed leaves it")
    return formats, grid["group"]


def grouped(weight_NK: torch.Tensor, group: int) -> torch.Tensor:
    """Weights as [N, K / group, group]; as [N, 1, K] where `group` is 0 or does not divide K."""
    inputs = weight_NK.shape[1]
    return weight_NK.unflatten(1, (-1, group if group and inputs % group == 0 else inputs))


def put_on_grid(layers: Iterable[torch.nn.Linear], quantize: Quantize) -> None:
    """Make layers multiply with `quantize(W)` from now on; their parameter is the latent W, which learns straight through."""
    from torch.nn.utils import parametrize

    for layer in layers:
        parametrize.register_parametrization(layer, "weight", _on_grid()(quantize))


def leave_on_grid(layers: Iterable[torch.nn.Linear], latent: bool = False) -> None:
    """Make them plain layers again, whose weights are what they multiplied with, or the `latent` ones."""
    from torch.nn.utils import parametrize

    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=not latent)


def straight_through(latent: torch.Tensor, quantize: Quantize) -> torch.Tensor:
    """`quantize(latent)`, of float32 and in the dtype of `latent`; the gradient passes as if nothing had been rounded."""
    found: torch.Tensor = _function().apply(latent, quantize)
    return found


@cache
def _function() -> Any:
    import torch

    class StraightThrough(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, latent: torch.Tensor, quantize: Quantize) -> torch.Tensor:
            return quantize(latent.float()).to(latent.dtype)

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
            return gradients[0], None

    return StraightThrough


@cache
def _on_grid() -> Any:
    import torch

    class OnGrid(torch.nn.Module):
        def __init__(self, quantize: Quantize) -> None:
            super().__init__()
            self.quantize = quantize

        def forward(self, latent_NK: torch.Tensor) -> torch.Tensor:
            return straight_through(latent_NK, self.quantize)

    return OnGrid
