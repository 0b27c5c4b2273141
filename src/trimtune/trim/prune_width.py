"""prune_width: removes the least important channels of the whole encoder, from its embeddings to its head.

Use it when the embeddings, most of a small model's bytes, must shrink too and training rows are at hand for the recovery fit;
not where two epochs are all that can be spent, nor for a model that is hardly tuned. A channel is part of every block: MiniLM on
the help desk set, 87.3% of 480 test rows, is at 72.5% without half of its channels and after two epochs (bench/trims.py), with
47 of 92 MB. Give it more `epochs`, or a smaller ratio.

    stream x [B, T, D] → x [B, T, D'],  D' = (1 − ratio) · D: every embedding, norm and linear layer loses the same channels
    activation  I[j] = Σ_norms √ Σ_rows (1/T Σ_t |y[t, j]|)²          y: what a layer norm gives, [B, T, D]
    taylor      I[j] = Σ_norms Σ_rows | Σ_t y[t, j] · ∂L/∂y[t, j] |
    weight      I[j] = Σ_W ‖W[:, j]‖² / ‖W‖²                          W: the matrices that read or write channel j

A layer norm then takes mean and variance over D' channels instead of D, so what it gives for the channels that stay is scaled
and shifted otherwise, in every block and for every token: that, not the channels alone, is why the model answers wrongly before
its recovery fit, and there is no cut of channels that changes nothing. With `steps` they go in stages, each with its own
importances and fit.

Source: Muralidharan et al. 2024, Minitron (arXiv 2407.14679), section 2.2, for the axis and for `activation` (mean over tokens,
L2 over rows, summed over norms); Molchanov et al. 2017 (arXiv 1611.06440), section 2.2, for `taylor`. Retraining with the
parent's answers is theirs as well (section 2.4).
Query, key and value become [H·d, D'], the output projection [D', H·d], W_up [I, D'], W_down [D', I]: heads and neurons stay, and
`prune_heads` and `prune_ffn` remove them. D' is a multiple of a head's d, so that `hidden_size / num_attention_heads` is still d;
config.json then names fewer heads than there are, is marked, and the folder is read by trimtune alone: `ship` writes bundles and
graphs of engines, no `merged`. The pooler's outputs (or those of a head's dense layer) are channels of their own, as many.
float32 in and out. LoRA is merged first; prompts lose the same channels, prefixes stay as they are. Before it is handed on the
cut model is compared with the whole one whose norms see the kept channels alone, and with what is read back: architectures whose
code counts otherwise (DeBERTa, MPNet), gated and transposed blocks (LLaMA, ModernBERT, GPT-2) are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtune.trim import _importance, _narrower, _stream, prune_heads
from trimtune.trim._gradual import gradually
from trimtune.trim._model_folder import base_of, size, write
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification",)
NEEDS_DATA = True
NUMERICS: str | None = None
NOT_AFTER = {"low_rank": "it leaves two thin layers for each, whose channels can't be cut"}
BUILDS_ON = ("prune_ffn", "prune_heads")


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float = Field(0.5, gt=0, lt=1, description="share of the channels to remove; what stays is a multiple of a head's")
    criterion: Literal["activation", "taylor", "weight"] = Field("activation", description="what a channel's importance is")
    steps: int = Field(1, ge=1, le=100, description="stages on the way to the ratio, each with a recovery fit of its own")
    rows: int = Field(512, ge=1, description="training rows that activation and taylor look at, drawn with the seed")
    epochs: int = Field(2, ge=0, le=100, description="passes of the recovery fit over the training rows; 0 leaves it out")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="of the recovery fit, which trains every weight")
    teacher: float = Field(0.5, ge=0, le=1, description="share of the recovery fit's loss that the parent's answers give")


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Write the pruned and recovered model folder.

    Returns:
        `width_before`, `width`, `parameters_before`, `parameters`, `importance_kept` (share of the summed importance that
        stays), the `recovery` fit's facts, and those of each of the `stages`.

    Raises:
        TrimtuneError: the architecture's channels can't be cut, or not to this width.
    """
    import torch

    wanted = Config.model_validate(config)

    def cut(module: torch.nn.Module, ratio: float) -> dict[str, Any]:
        base, parameters = base_of(module), size(module)
        stream = _stream.stream_of(base)
        score_D, tail_D = _stream.importances(module, stream, wanted.criterion, source, wanted.rows, setting)
        kept, kept_tail = (chosen(score, ratio, prune_heads.head_size(base)) for score in (score_D, tail_D))
        _narrower.cut(module, stream, kept, kept_tail)
        return {"before": len(score_D), "after": len(kept), "parameters_before": parameters,
                "importance_kept": round(_importance.share_kept([score_D], [kept]), 4)}

    def like(module: torch.nn.Module, told: dict[str, Any]) -> None:
        _narrower.cut(module, _stream.stream_of(base_of(module)), *[torch.arange(told["after"])] * 2)

    module, facts = gradually(source, folder, setting, cut, like, ratio=wanted.ratio, steps=wanted.steps,
                              learning_rate=wanted.learning_rate, epochs=wanted.epochs, share=wanted.teacher)
    write(module, source, folder)
    first, last = facts["stages"][0], facts["stages"][-1]
    return {"width_before": first["before"], "width": last["after"], "parameters_before": first["parameters_before"],
            "parameters": size(module), **facts}


def chosen(score_D: torch.Tensor, ratio: float, multiple: int) -> torch.Tensor:
    """The most important channels in ascending order, as many as a multiple says; none of none."""
    width = min(len(score_D), max(multiple, round(len(score_D) * (1 - ratio) / multiple) * multiple))
    return score_D.topk(width).indices.sort().values
