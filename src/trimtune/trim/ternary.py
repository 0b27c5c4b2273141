"""ternary: every weight of the encoder's linear layers becomes +s, 0 or −s: five to a byte, and a scale per group of inputs.

Use it when bytes on disk or on the wire are what counts and the fit must be short, which `binary` needs more; not for speed or
memory (the weights are unpacked when they are loaded), nor where int4 is small enough: it costs less accuracy (MiniLM on SST-2,
2,000 rows: tuned 85.6%, int4 85.3%, three values 80.1%, and 82.2% after two epochs). The embeddings, int8, are then most of a
small model's bytes.

    Ŵ[n, k] = s[n, g] · sign(W[n, k]) where |W[n, k]| > Δ[n, g], else 0        g = g(k), the group of k
    Δ[n, g] = 0.7 · mean over the group of |W|,   s[n, g] = mean over those above Δ of |W|

Source: Li et al. 2016, Ternary Weight Networks (arXiv 1605.04711), section 2: threshold, scale, and the gradient of Ŵ that trains
W; here with a scale per group. Ma et al. 2024, BitNet b1.58 (arXiv 2402.17764), section 2, takes half the mean as threshold, the
mean as scale, one scale per matrix, and trains from the beginning.
W is [N, K]; s is a number of bfloat16. All weights learn; the loss is that of the labels and of the parent's answers. The folder
that it hands on holds float32 and is read by plain transformers; its weights lie on the grid exactly, so the engine packs them
without loss (1.6 + 16 / group bits each). Pooler and head stay float32, activations as well. LoRA is merged first; prefixes and
prompts stay beside the weights. Of a language model the output layer is stored in int8 like the embeddings, which it may be.
It comes last in a chain of trims. It refuses models without plain linear layers in their blocks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.trim import _few_bits
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = True
NUMERICS: str | None = "ternary"
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (90, ({},))
Config = _few_bits.Config
_THRESHOLD = 0.7
"""of the mean size: nearly the best one for normal and uniform weights"""


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Write the fitted model folder; facts as those of `_few_bits.trim`."""
    return _few_bits.trim(folder, source, config, setting, quantize, "ternary")


def quantize(weight_NK: torch.Tensor, group: int) -> torch.Tensor:
    """Near the closest weights of three values per group: float32 [N, K] → float32 [N, K]."""
    groups = _few_bits.grouped(weight_NK, group)
    size = groups.abs()
    kept = size > _THRESHOLD * size.mean(2, keepdim=True)
    scale = ((size * kept).sum(2, keepdim=True) / kept.sum(2, keepdim=True).clamp_min(1)).bfloat16().float()
    return (groups.sign() * kept * scale).flatten(1)
