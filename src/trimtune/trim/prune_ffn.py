"""prune_ffn: removes the least important neurons of every feed-forward block; the matrices really get smaller.

Use it when int8 alone is too slow or too big and training rows are at hand for the recovery fit; not for a model that is
hardly tuned (its importances say little), and expect quality to fall with the ratio: half costs some points, 0.9 ruins it.

    I[j] = Σ_rows | Σ_t h[t, j] · ∂L/∂h[t, j] |      h = activation(x W_upᵀ + b) of a block, [B, T, I]
    keep the (1 − ratio) · I neurons with the largest I[j], the same count in every block; then fit all weights again

I is that of the default criterion `taylor`; `activation` takes √(Σ_rows (1/T Σ_t |h|)²), `weight` the norm of W_down's column.
With `steps` the neurons go in stages, each with its own importances and fit (`r (1 − (1 − t / steps)³)` after stage t, as in
`prune_weights`).

Source: Molchanov et al. 2017 (arXiv 1611.06440), section 2.2, the first-order Taylor criterion (here per row, as in
Hou et al. 2020, DynaBERT, arXiv 2004.04037, section 2.1, for neurons of transformers).
W_up [I, D] loses rows, W_down [D, I] the same columns; in gated blocks (Llama) h = activation(x W_gateᵀ) · x W_upᵀ, and W_gate
[I, D] loses the rows of W_up. `config.intermediate_size` tells any loader. float32 in and out. LoRA is merged first; prefixes and
prompts stay beside the weights. Of a language model L is the loss of a row's learned tokens. It refuses blocks whose gate lies in
one matrix with what it gates (ModernBERT) and those without a width of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.trim import _importance
from trimtune.trim._gradual import gradually
from trimtune.trim._model_folder import base_of, size, write
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch

    Block = tuple[tuple[str, ...], str]
    """names of a block's linear layers: the one that widens, or a gate and the one that it gates; the one that narrows"""

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = True
NUMERICS: str | None = None
NOT_AFTER = {"low_rank": "it leaves two thin layers for each, whose neurons can't be cut"}
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (40, ({}, {"ratio": 0.75}))
_WIDTHS = ("intermediate_size", "hidden_dim", "ffn_dim", "n_inner")
"""what transformers' configs call a block's hidden width; GPT-2's may be None, which is four times its states'"""
_MULTIPLE = 16
"""kernels like widths that fill their vectors"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float = Field(0.5, gt=0, lt=1, description="share of each block's neurons to remove; what stays is a multiple "
                                                      "of 16, and another width than the states'")
    steps: int = Field(1, ge=1, le=100, description="stages on the way to the ratio, each with a recovery fit of its own")
    criterion: Literal["taylor", "activation", "weight"] = Field(
        "taylor", description="a neuron's importance: how the loss changes without it, how strong it is, how strongly it is read")
    rows: int = Field(512, ge=1, description="training rows that the importances are summed over, drawn with the seed")
    epochs: int = Field(2, ge=0, le=100, description="passes of the recovery fit over the training rows; 0 leaves it out")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="of the recovery fit, which trains every weight")
    teacher: float = Field(0.5, ge=0, le=1, description="share of the recovery fit's loss that the parent's answers give")


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Write the pruned and recovered model folder.

    Returns:
        `width_before`, `width`, `blocks`, `parameters_before`, `parameters`, `importance_kept` (share of the summed importance
        that stays), the `recovery` fit's facts, and those of each of the `stages`.

    Raises:
        TrimtuneError: the architecture has no feed-forward blocks of two plain linear layers, or of three with a gate.
    """
    import torch

    wanted = Config.model_validate(config)

    def cut(module: torch.nn.Module, ratio: float) -> dict[str, Any]:
        parameters, blocks = size(module), feed_forward_blocks(base_of(module))
        scores = _importance.importances(module, [down for _, down in blocks], source, wanted.rows, setting,
                                         criterion=wanted.criterion)
        width, kept_share = remove(base_of(module), blocks, scores, ratio)
        return {"before": len(scores[0]), "after": width, "blocks": len(blocks), "parameters_before": parameters,
                "importance_kept": round(kept_share, 4)}

    def like(module: torch.nn.Module, told: dict[str, Any]) -> None:
        _cut_to(base_of(module), feed_forward_blocks(base_of(module)), [torch.arange(told["after"])] * told["blocks"])

    module, facts = gradually(source, folder, setting, cut, like, ratio=wanted.ratio, steps=wanted.steps,
                              learning_rate=wanted.learning_rate, epochs=wanted.epochs, share=wanted.teacher)
    write(module, source, folder, task=parts.load("task", setting.task))
    first, last = facts["stages"][0], facts["stages"][-1]
    return {"width_before": first["before"], "width": last["after"], "blocks": last["blocks"],
            "parameters_before": first["parameters_before"], "parameters": size(module), **facts}


def feed_forward_blocks(base: Any) -> list[Block]:
    """The linear layers of each block, in the model's order, that widen to the config's width, one or a gate and another, and
    the one that narrows back.

    Raises:
        TrimtuneError: none, or not together inside a common layer.
    """
    import torch

    width, hidden = _width(base.config), getattr(base.config, "hidden_size", None)
    linear = {f"{base.base_model_prefix}.{name}": layer for name, layer in base.base_model.named_modules()
              if isinstance(layer, torch.nn.Linear) and "att" not in name.lower()}  # heads may be as wide together
    ups = [name for name, layer in linear.items() if (layer.in_features, layer.out_features) == (hidden, width)]
    downs = [name for name, layer in linear.items() if (layer.in_features, layer.out_features) == (width, hidden)]
    blocks = [(_beside(down, ups), down) for down in downs]
    if width == hidden or not blocks or any(len(above) not in (1, 2) for above, _ in blocks):
        raise TrimtuneError(f"prune_ffn: {type(base).__name__} has no feed-forward blocks of two plain linear layers, or of "
                            f"three with a gate ({hidden} → {width} → {hidden}: {len(ups)} up, {len(downs)} down).",
                            "Allowed: BERT-like encoders (BERT, DistilBERT, RoBERTa, ELECTRA …), Llama-like and GPT-2-like "
                            "decoders; no gate and up in one matrix, no experts.",
                            "Leave prune_ffn out of `trim`, or use a model such as `minilm`.")
    return blocks


def _beside(down: str, ups: Sequence[str]) -> tuple[str, ...]:
    """Those that widen for `down`: held by the same module, or else by the same layer."""
    together = tuple(up for up in ups if up.rpartition(".")[0] == down.rpartition(".")[0])
    return together or tuple(up for up in ups if _layer(up) == _layer(down))


def remove(base: Any, blocks: Sequence[Block], scores: Sequence[torch.Tensor], ratio: float) -> tuple[int, float]:
    """Cut every block to its most important neurons, in place; returns the new width and the share of importance kept.

    Never to the states' own width: by that the layers of a block could no longer be told from others by later trims.
    """
    before = len(scores[0])
    width = min(before, max(_MULTIPLE, round(before * (1 - ratio) / _MULTIPLE) * _MULTIPLE))
    width += _MULTIPLE * (width == getattr(base.config, "hidden_size", None))
    kept = [score_I.topk(width).indices.sort().values for score_I in scores]
    _cut_to(base, blocks, kept)
    return width, _importance.share_kept(scores, kept)


def _cut_to(base: Any, blocks: Sequence[Block], kept: Sequence[torch.Tensor]) -> None:
    for (ups, down), neurons in zip(blocks, kept, strict=True):
        for up in ups:
            _importance.keep_outputs(base.get_submodule(up), neurons)
        _importance.keep_inputs(base.get_submodule(down), neurons)
    setattr(base.config, _width_name(base.config), len(kept[0]))


def _width_name(config: Any) -> str:
    return next((name for name in _WIDTHS if hasattr(config, name)), _WIDTHS[0])


def _width(config: Any) -> int | None:
    found: int | None = getattr(config, _width_name(config), None)
    return 4 * config.hidden_size if found is None and hasattr(config, "n_inner") else found


def _layer(name: str) -> str:
    """`bert.encoder.layer.3.output.dense` → `bert.encoder.layer.3`: up to the last number, so the block's own layer."""
    names = name.split(".")
    last = max((index for index, word in enumerate(names) if word.isdigit()), default=-1)
    return ".".join(names[:last + 1])
