"""int8: weights of linear layers and embeddings in 8 bits, activations in 8 bits while running, by the engine's own kernels.

Use it when size or latency on a CPU with 8-bit dot products (AVX-512 VNNI, AMX, ARM dotprod) counts; not where a CPU runs
bf16 faster than int8 (only measuring tells), nor when answers must stay equal: MiniLM's logits move by 5–8% of their spread.

    W[n, k] ≈ s[n] · q[n, k],  s[n] = max_k |W[n, k]| / 127,  q ∈ {-127 … 127}     one scale per output channel
    x ≈ t · (a − z),  a ∈ 0 … 255;  x Wᵀ ≈ t · s[n] · Σ_k (a − z) q[n, k]          summed in int32

Source: Jacob et al. 2018 (arXiv 1712.05877), section 2; for transformers Zafrir et al. 2019 (arXiv 1910.06188), section 2.
t and z come from each batch on PyTorch and ONNX Runtime (dynamic), from training rows on OpenVINO (static, through NNCF).
W is [N, K], x is [B, T, K]; softmax, layer norm and the head stay in floating point. Packed: the bytes shrink
to a quarter.

Of a language model only weights are stored in 8 bits, since reading them is what a token costs; how products are summed is the
engine's affair (`trimtune explain` with its name), and no training rows are needed.

The engine realizes it, so it comes last in a chain of trims; the folder that it hands on is the source's, untouched.
"""

from __future__ import annotations

from typing import Any

from trimtune.trim import _handed_on

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = False
NUMERICS: str | None = "int8"
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (90, ({},))
Config, run = _handed_on.Config, _handed_on.run
