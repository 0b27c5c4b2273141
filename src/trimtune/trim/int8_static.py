"""int8_static: int8 whose activations keep one scale each, read off training rows once, instead of a new one per batch.

Use it where answers must not depend on a row's neighbors; not without training rows like those that will come, nor where `int8`
is already static (OpenVINO) and good enough. Whether it is faster than `int8`, only measuring tells.

    x ≈ t · (a − z),  a ∈ 0 … 255,   t = (h − l) / 255,  z = round(−l / t),   [l, h] = [max(min x, −c), min(max x, c)]
    minmax      c = ∞: nothing is clipped
    percentile  c: the percentile of |x|
    entropy     c that minimizes KL(P ‖ Q), P the histogram of x, Q the same at 256 levels
    mse         c that minimizes Σ (x − t (a − z))²: rounding, (h − l)² / 12 / 255² per value inside, and what is clipped

Source: ranges of training rows Jacob et al. 2018 (arXiv 1712.05877), section 3; minmax, percentile and entropy as compared in
Wu et al. 2020 (arXiv 2004.09602), section 3.4; mse Nagel et al. 2021 (arXiv 2106.08295), section 3.1. Weights W [N, K] are int8
per output channel and embeddings int8, as in `int8`; x is [B, T, K], one scale per tensor; softmax, attention's own products,
layer norms, GELU and the head stay in floating point. Packed: the bytes shrink to a quarter.

MiniLM on 480 help desk rows (float32 85.6%, `int8` 84.4%; ranges of 300 rows, on ONNX Runtime): percentile 85.0%, mse 84.8%,
minmax and entropy 83.8%. So few rows tell none of these apart. But entropy cuts off the few large values that transformers live
by, and moves logits by 10.9% of their spread, mse by 3.7%, minmax by 3.8%, percentile by 4.1%, `int8` by 3.8%.

Ranges are gathered batch after batch on ONNX Runtime, so memory does not grow with `rows`: MiniLM with rows of 128 tokens takes
62 MB beside its session after 12 rows and after 40. (NNCF keeps a little of each row.) Rows of one length go together: no padding
enters a range, and at run time padded places change no other's answer. The engine realizes it, so it comes last in a chain of
trims; it hands the source's folder on, with these settings in `calibration.json` beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtune.store import link_tree
from trimtune.trim import _calibrated
from trimtune.tune.recovery import Setting

TASKS = ("text_classification",)
NEEDS_DATA = False
NUMERICS: str | None = "int8_static"
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (90, ({},))
Config = _calibrated.Config


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Hand the source on by hard links, and the settings beside it; there are no facts."""
    link_tree(source, folder)
    _calibrated.leave(folder, Config.model_validate(config))
    return {}
