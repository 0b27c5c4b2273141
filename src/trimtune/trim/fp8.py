"""fp8: weights of linear layers, and what enters them, in floating point numbers of 8 bits (E4M3), by ranges of training rows.

Use it where the model will run on a GPU that multiplies fp8 (NVIDIA from Ada on); not on CPUs, none of which does: there it is
only stored so, and `int8_static` is as small and faster.

    x ≈ t · a,  a ∈ E4M3: ± 1.m · 2^e, 3 bits of m, |a| ≤ 448;   t = max |x| / 448 over training rows
    W ≈ s · q,  q ∈ E4M3,  s = max |W| / 448, one for each matrix

Source: Micikevicius et al. 2022 (arXiv 2209.05433), section 3 for the format, 4.2 for inference from models trained in higher
precision. W is [N, K], x [B, T, K]; a number keeps 4 significant bits whatever its size, so outliers cost the small ones little
and nothing is clipped. Softmax, attention's own products, layer norms, GELU, pooler and head stay in the engine's floats;
embeddings in int8 or those floats. Packed: the bytes of these layers shrink to a quarter.

The engine realizes it, so it comes last in a chain of trims; it hands the source's folder on, with its settings in
`calibration.json` beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from trimtune.store import link_tree
from trimtune.trim import _calibrated
from trimtune.tune.recovery import Setting

TASKS = ("text_classification",)
NEEDS_DATA = False
NUMERICS: str | None = "fp8"


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(300, ge=1, description="training rows that are looked at, evenly spaced; more than there are: all")


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Hand the source on by hard links, and the settings beside it; there are no facts."""
    link_tree(source, folder)
    _calibrated.leave(folder, _calibrated.Config(calibration="minmax", rows=Config.model_validate(config).rows))
    return {}
