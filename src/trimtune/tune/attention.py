"""Which attention is fast here: the usual one, unless timing each kind at the width of the user's rows says otherwise clearly.

`eager` writes the attention map out: three products and a softmax. `eager_float32` does so with the softmax in float32
(softmax.py). `sdpa` is torch's fused kernel: it needs less memory and wins on long rows, on GPUs and in float32, but on CPUs
its backward pass in bf16 is slow. They differ in the last digits only; but a fit whose last digits follow from which kind
happened to be quicker at the moment is not the same fit twice, so what is near is not decided by the clock (LOG.md).
"""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune import parts
from trimtune.process import emit, place
from trimtune.records import Artifact, Study
from trimtune.store import Store
from trimtune.tasks._base import reading_of
from trimtune.tune import device, precision, softmax

if TYPE_CHECKING:
    import torch

KINDS = ("eager", softmax.NAME, "sdpa")
CLEARLY = 2.0
"""how many times as fast as the usual one another must be"""
SHORT, LONG = 56, 512
"""tokens: on CPUs in bf16 a float32 softmax wins below the one, torch's fused kernel from the other on"""
_MAP_BYTES = 2**26
"""the largest attention map that is timed: fewer rows are, where rows are long"""


def working_attention(study: Study, precision_: str, base: Artifact, rows: Artifact, store: Store) -> str:
    """One of `KINDS` for the fits of a study; timed once per machine, model and rows, and kept in the store."""
    shared = dict(task=study.task, batch_size=study.fit.batch_size, max_length=study.fit.max_length, precision_=precision_,
                  reading=reading_of(study, rows))
    timed = store.step("attention", study.task, time_each, {**shared, "base": base.folder, "rows": rows.folder},
                       config={**shared, **place()}, parents=(base, rows), code=parts.room_hash("tune"))
    return str(timed.facts["chosen"])


def time_each(folder: Path, *, base: Path, rows: Path, task: str, batch_size: int, max_length: int,
              precision_: str, reading: dict[str, Any]) -> dict[str, Any]:
    """The step that keeps the timing: milliseconds of one layer, forward and backward, per kind. Writes no file."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base)
    heads, size = config.num_attention_heads, config.hidden_size
    part = parts.load("task", task)
    splits, tokenizer = part.rows.load(rows), part.load_tokenizer(base)
    found = [part.inputs(tokenizer, getattr(splits, name), max_length, name, **reading) for name in ("train", "validation")]
    for note in [note for inputs in found for note in inputs.notes]:  # said here, once per study, and not by each fit
        emit("note", text=note)
    width = round(statistics.fmean(map(len, found[0].ids)))
    rows_timed = max(1, min(batch_size, _MAP_BYTES // (4 * heads * width**2)))
    took = milliseconds(rows_timed, heads, width, size // heads, precision_)
    return {"milliseconds": took, "width": width, "rows": rows_timed, "chosen": choose(took, usual(width, precision_))}


def usual(width: int, precision_: str) -> str:
    """The kind that was the fastest or near it on CPUs (LOG.md), and the fused one on GPUs, for rows of `width` tokens."""
    if device.here().type != "cpu" or precision_ == "fp32" or width >= LONG:
        return "sdpa"
    return softmax.NAME if width < SHORT else "eager"


def choose(took: dict[str, float], usual_: str) -> str:
    """The usual kind, or the fastest where that is `CLEARLY` faster."""
    fastest = min(took, key=took.__getitem__)
    return fastest if took[fastest] * CLEARLY < took[usual_] else usual_


def milliseconds(rows: int, heads: int, width: int, channels: int, precision_: str, turns: int = 20,
                 seconds: float = 1.0) -> dict[str, float]:
    """Per kind the shortest of its times for one attention over [rows, heads, width, channels], forward and backward, with a
    mask. The kinds take turns, so that a slow moment is slow for all; after three turns they end when `seconds` are over."""
    import torch

    at, working = device.here(), precision.dtype(precision_)
    query, key, value = (torch.randn(rows, heads, width, channels).to(at, working).requires_grad_(True) for _ in range(3))
    mask = torch.zeros(rows, 1, width, width, dtype=working, device=at)
    took = {kind: math.inf for kind in KINDS if kind != softmax.NAME or precision_ != "fp32"}  # where it would be `eager`
    began = time.perf_counter()
    for turn in range(turns):
        if turn >= 3 and time.perf_counter() - began > seconds:
            break
        for kind in took:
            started = time.perf_counter()
            attend(kind, query, key, value, mask).sum().backward()
            device.wait(at)
            took[kind] = min(took[kind], time.perf_counter() - started)
    return {kind: round(1000 * seconds, 3) for kind, seconds in took.items()}


def attend(kind: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """softmax(Q Kᵀ / √d + mask) V, as transformers computes it under this name."""
    import torch

    if kind == "sdpa":
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    if kind == softmax.NAME:
        return softmax.attend(query, key, value, mask, query.shape[-1] ** -0.5)
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + mask
    return torch.softmax(scores, -1) @ value
