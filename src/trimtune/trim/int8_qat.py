"""int8_qat: int8 after a short fit that already computes with int8's numbers, so that the weights learn to live with them.

Use it where `int8` loses accuracy that matters, which only measuring tells; not where int8 is as good as its parent: the fit is
one more tuning and moves answers further than int8's rounding does (MiniLM on the help desk set, 480 test rows on PyTorch:
parent 89.2%; int8 88.5, with the parent's answer on 98.5% of the rows; int8_qat 88.8 and 97.3; the same fit without rounding,
then int8, 88.5 and 97.1: no gain there). A small BERT gains whose rows were stretched by one large weight: 47.5%, int8 12.5,
int8_qat 54.8, the fit without rounding and then int8 20.6.

    y = seen(x) Ŵᵀ + b,   Ŵ = s[n] · round(W / s[n]),  s[n] = max_k |W[n, k]| / 127       weights, one scale per output channel
    seen(x) = t · (clamp(round(x / t) + z, 0, 255) − z),  t = (h − l) / 255,  z = round(−l / t)      [l, h]: of all of x, and 0
    ∂L/∂W := ∂L/∂Ŵ,   ∂L/∂x := ∂L/∂seen(x)      straight through: nothing is clipped, so rounding is all that is passed over

Source: Jacob et al. 2018 (arXiv 1712.05877), section 3; there a running mean gives the ranges of activations, here each batch
its own, as the kernels of `int8` have it. For transformers Zafrir et al. 2019 (arXiv 1910.06188), section 2.
W is [N, K], x is [B, T, K]. Embeddings are rounded row by row; softmax, attention's products, layer norms and the head are not.
All weights learn; the loss is that of the labels and of the parent's answers. What is handed on is the latent W in float32, as a
plain model folder, which the engine makes int8 of exactly as `int8` does. Packed: the bytes shrink to a quarter. LoRA is merged
first; prefixes and prompts stay beside the weights. It comes last in a chain of trims. It refuses models without plain linear
layers (GPT-2).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from trimtune.tasks import text_classification
from trimtune.trim import _few_bits, _grids
from trimtune.trim._model_folder import base_of, write
from trimtune.trim._recovered import recovered
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification",)
NEEDS_DATA = True
NUMERICS: str | None = "int8"
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (90, ({},))


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(2, ge=0, le=100, description="passes of the fit over the training rows; 0 leaves it out, which is int8")
    learning_rate: float = Field(5e-5, gt=0, le=1, description="of the fit, which trains every weight")
    teacher: float = Field(0.5, ge=0, le=1, description="share of the fit's loss that the parent's answers give")


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Write the fitted model folder, its weights in float32.

    Returns:
        `matrices` (linear layers that were rounded), `embeddings`, and the `recovery` fit's facts.

    Raises:
        TrimtuneError: the model has no plain linear layers in its blocks.
    """
    wanted = Config.model_validate(config)
    module = text_classification.load_model(source, attention="eager")
    base = base_of(module)
    _few_bits.matrices(base, "int8_qat")
    with rounding(base) as (layers, tables):
        recovery = recovered(module, source, folder, wanted, setting)
    write(module, source, folder)
    return {"matrices": layers, "embeddings": tables, "recovery": recovery}


@contextmanager
def rounding(base: Any) -> Iterator[tuple[int, int]]:
    """While it lasts, a transformers model computes with int8's numbers, its head aside, and learns straight through them.

    Yields:
        how many linear layers and embeddings that concerns.
    """
    import torch

    layers = list(_few_bits.linears(base).values())
    tables = [module for module in base.base_model.modules() if isinstance(module, torch.nn.Embedding)]

    def enter(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (_few_bits.straight_through(inputs[0], _grids.seen8_together), *inputs[1:])

    def leave(_: torch.nn.Module, __: Any, rows: torch.Tensor) -> torch.Tensor:
        return _few_bits.straight_through(rows, _grids.seen8)

    _few_bits.put_on_grid(layers, _grids.on_grid8)
    hooks = [layer.register_forward_pre_hook(enter) for layer in layers]
    hooks += [table.register_forward_hook(leave) for table in tables]
    try:
        yield len(layers), len(tables)
    finally:
        for hook in hooks:
            hook.remove()
        _few_bits.leave_on_grid(layers, latent=True)
