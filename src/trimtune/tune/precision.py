"""Which number format is fast here: found by timing a matrix product, never from a flag or a CPU's name.

A CPU with bf16 units multiplies bf16 several times faster than float32; one without can be three times slower.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune import parts
from trimtune.process import emit, place
from trimtune.records import Study
from trimtune.store import Store
from trimtune.tune import device

if TYPE_CHECKING:
    import torch

_SHAPE = (768, 384, 1536)
"""rows × inner × columns: the feed-forward product of a small encoder on 32 rows of 24 tokens"""


def gflops(dtype: torch.dtype, seconds: float = 0.1) -> float:
    """GFLOP/s of `x @ w.T` in `dtype` on this process's device, timed for about `seconds`."""
    import torch

    at, (rows, inner, columns) = device.here(), _SHAPE
    x, w = torch.randn(rows, inner).to(at, dtype), torch.randn(columns, inner).to(at, dtype)
    for _ in range(3):
        torch.nn.functional.linear(x, w)
    device.wait(at)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            torch.nn.functional.linear(x, w)
        device.wait(at)
        count += 10
    return 2 * rows * inner * columns * count / (time.perf_counter() - started) / 1e9


@cache
def measured() -> dict[str, float]:
    """GFLOP/s of fp32 and bf16 on this machine; 0.2 s, once per process. They take turns, and the best turn counts: other load
    takes from some turns and not from all."""
    import torch

    turns = [(gflops(torch.float32, 0.025), gflops(torch.bfloat16, 0.025)) for _ in range(4)]
    return dict(zip(("fp32", "bf16"), map(max, zip(*turns, strict=True)), strict=True))


def choose(precision: str) -> str:
    """`fp32` or `bf16`. `auto` takes bf16 where its product is at least 1.3 times as fast as float32's."""
    if precision != "auto":
        return precision
    speed = measured()
    return "bf16" if speed["bf16"] > 1.3 * speed["fp32"] else "fp32"


def working_precision(study: Study, store: Store) -> str:
    """`fp32` or `bf16` for the fits of a study; timed once per machine and kept in the store."""
    if study.fit.precision != "auto":
        return study.fit.precision
    timed = store.step("precision", "gemm", time_products, {}, code=parts.room_hash("tune"), config=place())
    return str(timed.facts["chosen"])


def time_products(folder: Path) -> dict[str, Any]:
    """The step that keeps the timing: facts hold GFLOP/s per format and the one chosen. Writes no file."""
    chosen, told = choose("auto"), ", ".join(f"{name} {speed:,.0f}" for name, speed in measured().items())
    emit("note", text=f"fits compute in {chosen}: matrix products at {told} GFLOP/s")
    return {"gflops": {name: round(speed, 1) for name, speed in measured().items()}, "chosen": chosen}


def dtype(precision: str) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
