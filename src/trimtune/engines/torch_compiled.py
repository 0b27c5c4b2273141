"""torch_compiled: the model in PyTorch, compiled by torch.compile (inductor, C++), on the CPU; only if a study names it.

Use it where PyTorch and a C++ compiler are there anyway, for a classifier that answers many rows or a small language model whose
answers are long; not for large models, which wait for their weights and not for operators, nor where loading must be quick: it
compiles when it is loaded.

    logits_BC = model(input_ids [B, T] int64, attention_mask [B, T] int64), float32; of a language model logits_BV after each
    next token, from a cache of keys and values

It must be named, since each candidate costs its compiling. Two graphs are compiled, one for a single row and one for more; any
number of rows and any length run on these. A language model's next tokens are compiled, its prompts taken in operator by
operator; its cache grows by blocks of 64 slots, and what it reads in memory counts them whole.
Compiled code stays in inductor's own cache of the user (TORCHINDUCTOR_CACHE_DIR), so a second load on the same machine is faster;
none of it is in the folder, since it fits one kind of CPU and can only be read by unpickling.

`freezing` is inductor's own (constants folded when a graph is compiled): weights become constants of each graph, in the layout
that its kernels want. It is off unless asked. For MiniLM in float32 the processor time of plain to frozen was 1.00 for a row of
16 tokens, 1.07 of 32 and 0.91 for 32 rows of 32, with 28 MB more memory and a slower load; bf16 was not measured.

`precision: auto` times both formats compiled (1 and 32 rows; of a language model one row's prompt and its next tokens), and
stores the weights in the faster. float32: |Δlogit| ≤ 1e-3, checked at export with one row and with several. bf16 (8 significant
bits): ≤ 0.25, checked alike, and left out beyond, or refused if the study named it; of a language model recorded, and judged by
the gate of `ship` through perplexity and next tokens.
LoRA is merged; prefixes and prompts stay in `adapter/`, or become the cache that a language model's rows begin with. It has no
int8. It refuses language models with windows of attention, or that count positions in another way.
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

from trimtune.engines import _compiled_classifier, _compiled_decoder, _graph

if TYPE_CHECKING:
    from trimtune.engines._decoding import Decoder

NUMERICS = {"text_classification": ("plain",), "causal_lm": ("plain",)}
TASKS = tuple(NUMERICS)
TOLERANCE = {"plain": 0.25, "fp32": 1e-3, "bf16": 0.25}
ONLY_IF_NAMED = True
SWEPT = False
"""all cores: the code is compiled for a number of threads, and each other number would be compiled anew"""
_TORCH = (2, 13)
"""the first that is known to keep the graphs of two models apart (`isolate_recompiles`)"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: the faster, timed here")
    freezing: bool = Field(False, description="weights become constants of the compiled graphs, in the layout of their kernels")


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
           max_length: int, task: str = "text_classification") -> dict[str, Any]:
    """Write config, weights, tokenizer, what stands before each row and engine.json; facts: those of
    `_compiled_classifier.export`, of a language model those of `_compiled_decoder.export`.
    """
    wanted = Config.model_validate(config)
    if task == "causal_lm":
        facts = _compiled_decoder.export(folder, source, wanted.precision, max_length, TOLERANCE["fp32"],
                                          wanted.freezing)
    else:
        facts = _compiled_classifier.export(folder, source, wanted.precision, max_length, TOLERANCE, wanted.freezing)
    return _graph.note(folder, engine="torch_compiled", task=task, numerics=numerics, packed="plain", **facts)


def load(folder: Path, threads: int) -> _graph.Run | Decoder:
    """A run of logits [B, C], compiled for so many threads; of a language model its decoder."""
    import torch

    torch.set_num_threads(threads)
    decodes = _graph.noted(folder).get("task") == "causal_lm"
    return _compiled_decoder.load(folder) if decodes else _compiled_classifier.load(folder)
