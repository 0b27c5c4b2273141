"""Which attention is fast here: found by timing each kind, forward and backward, at the width of the user's rows.

`eager` writes the attention map out: three products and a softmax. `eager_float32` does so with the softmax in float32
(softmax.py). `sdpa` is torch's fused kernel: it needs less memory and wins on long rows and on GPUs, but on CPUs its backward
pass is slow. They differ in the last digits only.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune import parts
from trimtune.process import place
from trimtune.records import Artifact, Study
from trimtune.store import Store
from trimtune.study import data
from trimtune.tune import device, precision, softmax

if TYPE_CHECKING:
    import torch

KINDS = ("eager", softmax.NAME, "sdpa")
CLEARLY = 1.3
"""how many times as fast as `eager` another must be: what is near would be chosen by the moment"""


def working_attention(study: Study, precision_: str, base: Artifact, rows: Artifact, store: Store) -> str:
    """One of `KINDS` for the fits of a study; timed once per machine, model and rows, and kept in the store."""
    shared = dict(task=study.task, batch_size=study.fit.batch_size, max_length=study.fit.max_length, precision_=precision_)
    timed = store.step("attention", study.task, time_each, {**shared, "base": base.folder, "rows": rows.folder},
                       config={**shared, **place()}, parents=(base, rows), code=parts.room_hash("tune"))
    return str(timed.facts["chosen"])


def time_each(folder: Path, *, base: Path, rows: Path, task: str, batch_size: int, max_length: int,
              precision_: str) -> dict[str, Any]:
    """The step that keeps the timing: milliseconds of one layer, forward and backward, per kind. Writes no file."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base)
    heads, size = config.num_attention_heads, config.hidden_size
    texts = data.load(rows).train.texts[:1000]
    tokenizer = parts.load("task", task).load_tokenizer(base)
    width = round(statistics.fmean(map(len, tokenizer(texts, truncation=True, max_length=max_length)["input_ids"])))
    kinds = [kind for kind in KINDS if kind != softmax.NAME or precision_ != "fp32"]  # where it would be `eager`
    found = {kind: round(1000 * seconds(kind, batch_size, heads, width, size // heads, precision.dtype(precision_)), 3)
             for kind in kinds}
    fastest = min(kinds, key=found.__getitem__)
    chosen = fastest if found[fastest] * CLEARLY < found["eager"] else "eager"
    return {"milliseconds": found, "width": width, "chosen": chosen}


def seconds(kind: str, rows: int, heads: int, width: int, channels: int, dtype: torch.dtype, turns: int = 9) -> float:
    """The median time of one attention over [rows, heads, width, channels], forward and backward, with a mask."""
    import torch

    at = device.here()
    query, key, value = (torch.randn(rows, heads, width, channels).to(at, dtype).requires_grad_(True) for _ in range(3))
    mask = torch.zeros(rows, 1, width, width, dtype=dtype, device=at)
    took = []
    for _ in range(turns):
        started = time.perf_counter()
        attend(kind, query, key, value, mask).sum().backward()
        device.wait(at)
        took.append(time.perf_counter() - started)
    return statistics.median(took[2:])


def attend(kind: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """softmax(Q Kᵀ / √d + mask) V, as transformers computes it under this name."""
    import torch

    if kind == "sdpa":
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    if kind == softmax.NAME:
        return softmax.attend(query, key, value, mask, query.shape[-1] ** -0.5)
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + mask
    return torch.softmax(scores, -1) @ value
