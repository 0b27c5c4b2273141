"""int4: weights of linear layers in 4 bits, packed two to a byte, scaled by groups.

Use it when a model must be small, or a language model fast where reading its weights is what a token costs (one row at a time on
a CPU); not for small models, whose answers change a lot (measured in the report), nor where 8 bits are small and fast enough.

    W[n, k] ≈ s[n, g(k)] · q[n, k],  q ∈ {-8 … 7},  g(k): the group of neighboring weights of a row

Source: Dettmers & Zettlemoyer 2023 (arXiv 2212.09720), section 2, for 4 bits and small blocks as the best use of a model's bits.
W is [N, K]; products are summed over K in 8-bit integers or floats, as the engine's kernels do. Norms stay in floating point,
embeddings and the output layer in 8 bits or more, where the engine can; a classifier's head in 8 bits or in float. Packed: the
bytes of these layers shrink to a sixth or less. Smaller groups lose less and cost more scales: 16 or 32 bits per group;
unless `group` says otherwise an engine takes the one that its kernels like, 32 or 64. Layers whose width is no multiple of it
stay in 8 bits, or take a smaller one (OpenVINO). llama.cpp has groups of its own and refuses others.

The engine realizes it, so it comes last in a chain of trims; it hands the source's folder on, with `int4.json` beside it where a
group is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtune.store import link_tree
from trimtune.trim import _groups
from trimtune.tune.recovery import Setting

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = False
NUMERICS: str | None = "int4"
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (90, ({},))


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    group: Literal[32, 64, 128, 256] | None = Field(None, description="neighboring weights of an output channel that share a "
                                                                      "scale; null: the engine's own, 32 or 64")


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Hand the source on by hard links, and the group beside it; there are no facts."""
    link_tree(source, folder)
    _groups.leave(folder, Config.model_validate(config).group)
    return {}
