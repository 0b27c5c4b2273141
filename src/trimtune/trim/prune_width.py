"""prune_width: removes the least important channels of the whole encoder, from its embeddings to its head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtune.tasks import text_classification
from trimtune.trim import _importance, _stream, prune_heads
from trimtune.trim._model_folder import base_of, size, write
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification",)
NEEDS_DATA = True
NUMERICS: str | None = None
BUILDS_ON = ("prune_ffn", "prune_heads")


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float = Field(0.5, gt=0, lt=1, description="share of the channels to remove; what stays is a multiple of a head's")
    criterion: Literal["activation", "taylor", "weight"] = Field("activation", description="what a channel's importance is")
    rows: int = Field(512, ge=1, description="training rows that activation and taylor look at, drawn with the seed")
    epochs: int = Field(2, ge=0, le=100, description="passes of the recovery fit over the training rows; 0 leaves it out")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="of the recovery fit, which trains every weight")
    teacher: float = Field(0.5, ge=0, le=1, description="share of the recovery fit's loss that the parent's answers give")


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Write the pruned and recovered model folder.

    Returns:
        `width_before`, `width`, `parameters_before`, `parameters`, `importance_kept` (share of the summed importance that
        stays) and the `recovery` fit's facts.

    Raises:
        TrimtuneError: the architecture's channels can't be cut.
    """
    wanted = Config.model_validate(config)
    module = text_classification.load_model(source, attention="eager")
    base, before = base_of(module), size(module)
    stream = _stream.stream_of(base)
    score_D, tail_D = _stream.importances(module, stream, wanted.criterion, source, wanted.rows, setting)
    kept, kept_tail = (chosen(score, wanted.ratio, prune_heads.head_size(base)) for score in (score_D, tail_D))
    _stream.cut(module, stream, kept, kept_tail)
    recovery = _importance.recovered(module, source, folder, setting, learning_rate=wanted.learning_rate, epochs=wanted.epochs,
                                     share=wanted.teacher)
    write(module, source, folder)
    return {"width_before": len(score_D), "width": len(kept), "parameters_before": before, "parameters": size(module),
            "importance_kept": round(_importance.share_kept([score_D], [kept]), 4), "recovery": recovery}


def chosen(score_D: torch.Tensor, ratio: float, multiple: int) -> torch.Tensor:
    """The most important channels in ascending order, as many as a multiple says; none of none."""
    width = min(len(score_D), max(multiple, round(len(score_D) * (1 - ratio) / multiple) * multiple))
    return score_D.topk(width).indices.sort().values
