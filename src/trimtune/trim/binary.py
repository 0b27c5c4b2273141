"""binary: every weight of the encoder's linear layers becomes +s or −s: one bit, and a scale per group of inputs.

Use it when bytes on disk or on the wire are what counts and points of accuracy may go; not for speed or memory (the weights are
unpacked when they are loaded), nor without some thousand training rows: the fit is what makes it answer (MiniLM on SST-2, 2,000
rows: tuned 85.6%, two values 62.0%, and 81.7% after three epochs). The embeddings, int8, are then most of a small model's bytes.

    Ŵ[n, k] = s[n, g(k)] · sign(W[n, k]),   s[n, g] = mean over the group of |W[n, k]|        sign(0) = +1

Source: Rastegari et al. 2016, XNOR-Net (arXiv 1603.05279), section 3.1: sign and mean are the closest such weights, and the
gradient of Ŵ trains W; here it passes unchanged (theirs is also cut where |W| > 1, which weights of transformers never are),
and s belongs to a group. For transformers Bai et al. 2020, BinaryBERT (arXiv 2012.15701), which learns from its parent as well.
W is [N, K]; s is a number of bfloat16. All weights learn; the loss is that of the labels and of the parent's answers. The folder
that it hands on holds float32 and is read by plain transformers; its weights lie on the grid exactly, so the engine packs them
without loss (1 + 16 / group bits each). Pooler and head stay float32, activations as well. LoRA is merged first; prefixes and
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
NUMERICS: str | None = "binary"
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (90, ({},))
Config = _few_bits.Config


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Write the fitted model folder; facts as those of `_few_bits.trim`."""
    return _few_bits.trim(folder, source, config, setting, quantize, "binary")


def quantize(weight_NK: torch.Tensor, group: int) -> torch.Tensor:
    """The closest weights of two values per group: float32 [N, K] → float32 [N, K]."""
    import torch

    groups = _few_bits.grouped(weight_NK, group)
    scale = groups.abs().mean(2, keepdim=True).bfloat16().float()
    return torch.where(groups < 0, -scale, scale).flatten(1)
