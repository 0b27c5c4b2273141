"""torch_compiled: the model in PyTorch with its next tokens compiled by torch.compile (inductor, C++), on the CPU; only if a
study names it.

Use it for a small language model where PyTorch and a C++ compiler are there anyway and answers are long; not for large models,
whose steps wait for the weights and not for operators, nor where loading must be quick: it compiles when it is loaded.

    logits_BV after each next token, float32, from a cache of keys and values; ids [B, T] int64, mask [B, T] int64

It must be named, since each candidate costs its compiling. Two graphs are compiled, one for a single
row and one for more; any number of rows and any length run on these. Prompts are taken in operator by operator. The cache grows
by blocks of 64 slots, and what it reads in memory counts them whole.
Compiled code stays in inductor's own cache of the user (TORCHINDUCTOR_CACHE_DIR), so a second load on the same machine is faster;
none of it is in the folder, since it fits one kind of CPU and can only be read by unpickling.

`precision: auto` times both formats compiled, one row's prompt and its next tokens, and stores the weights in the faster.
float32: |Δlogit| ≤ 1e-3, checked at export with one row and with several; bf16 (8 significant bits): recorded, and judged by
the gate of `ship` through perplexity and next tokens.
LoRA is merged; a prefix or prompt becomes the cache that rows begin with. It refuses windows of attention, and architectures
that count positions in another way.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtune.engines import _compiled_decoder, _graph

if TYPE_CHECKING:
    from trimtune.engines._decoding import Decoder

NUMERICS = {"causal_lm": ("plain",)}
TASKS = tuple(NUMERICS)
TOLERANCE = {"plain": 0.25, "fp32": 1e-3, "bf16": 0.25}
ONLY_IF_NAMED = True
_TORCH = (2, 13)
"""the first that is known to keep the graphs of two models apart (`isolate_recompiles`)"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: the faster, timed here")


def available() -> str | None:
    """The compiler that inductor would call, and the headers that its C++ includes."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    torch = importlib.metadata.version("torch")
    if tuple(map(int, torch.split(".")[:2])) < _TORCH:
        return f"torch {torch} is too old for it: pip install 'torch>={'.'.join(map(str, _TORCH))}'"
    if not shutil.which(compiler):
        return f"no C++ compiler '{compiler}': install one (apt install g++; pip install can't), or name yours in CXX"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return "no Python.h: install Python's headers (apt install python3-dev; pip install can't)"
    return None


def export(folder: Path, source: Path, config: dict[str, Any], numerics: str, calibration: list[str],
           max_length: int, task: str = "causal_lm") -> dict[str, Any]:
    """Write config, weights, tokenizer, what stands before each row and engine.json; facts: `precision`, `positions`,
    `difference` and `milliseconds`, as `_compiled_decoder.export` tells them.
    """
    wanted = Config.model_validate(config)
    facts = _compiled_decoder.export(folder, source, wanted.precision, max_length, TOLERANCE["fp32"])
    return _graph.note(folder, engine="torch_compiled", task=task, numerics=numerics, packed="plain", **facts)


def load(folder: Path, threads: int) -> Decoder:
    """The decoder, compiled for so many threads."""
    import torch

    torch.set_num_threads(threads)
    return _compiled_decoder.load(folder)
