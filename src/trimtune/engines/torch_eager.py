"""torch_eager: the model in PyTorch itself, operator by operator, on the CPU.

Use it as the reference that every other engine is compared with, and where nothing but PyTorch may be installed; not
when latency counts: engines that fuse a graph's operators are mostly faster.

    logits_BC = model(input_ids [B, T] int64, attention_mask [B, T] int64), float32; of a language model logits_BTV, and
    logits_BV after each next token, from a cache of keys and values

`precision: auto` times float32 and bf16 forwards at export, with 1 and 32 rows (of a language model a prompt and its next
tokens), and writes the faster into engine.json; weights are stored in it. float32: |Δlogit| ≤ 1e-3; bf16 (8 significant
bits): |Δlogit| ≤ 0.25, the same labels but for near ties; of a language model it is recorded, and the gate of `ship` judges
its perplexity and next tokens.
int8: linear layers hold int8 weights per output channel and quantize activations per tensor and batch (uint8), so a row's logits
depend a little on its neighbors; embeddings are int8 per row, a quarter of their size, at no loss that shows beside the
layers'; attention, layer norms and the head stay float32. All in safetensors: weights int8 with float32 scales, packed for the
kernels on load.
bf16, asked for by the trim of that name, is stored and runs whatever the clock says; fp16 is only stored and runs as float32,
|Δlogit| ≤ 0.1. sparse stores what `precision` chose, and sparse_int8 what int8 made, without zeros; on load they are put back:
the answers, speed and memory of dense weights.
int4: groups of 32 weights with a scale and an offset, activations in bf16, embeddings int8; no row depends on its neighbors.
binary, ternary: what these trims leave, stored in 1 and 1.6 bits per weight and a scale per group, embeddings int8. Only stored
so: the matrices [N, K] are unpacked on load to the float32 that they were, bit for bit, and speed and memory are float32's;
|Δlogit| ≤ 0.25, by the embeddings.
mixed: each linear layer in the format that config.json names, as the trim of that name chose it. int4 and int8 run packed (int8
with a scale per token, so no row depends on its neighbors), binary and ternary are only stored; `precision` lists what runs.

Language models in int8 and int4 are another path: weights are packed and activations follow each token by itself, so no row
depends on its neighbors; embeddings and the output layer are int8 in both (`engines/_packed_torch.py`). int4 makes next tokens
fast and reads prompts slower than bf16; binary and ternary are only stored so, beside the same embeddings, and run as float32;
mixed has each linear layer in the format that config.json names, beside the same embeddings.
The difference to the model in float32 is in engine.json.

LoRA is merged; prefixes and prompts stay in `adapter/`. It refuses int8, int4 and below for classifiers without plain linear
layers (GPT-2).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtune.engines import _few_bits_torch, _graph, _int8_torch, _sparse_torch, _torch_decoder
from trimtune.engines._stored_classifier import read
from trimtune.errors import TrimtuneError
from trimtune.tasks import text_classification
from trimtune.trim._model_folder import write

if TYPE_CHECKING:
    import torch

    from trimtune.engines._decoding import Decoder

NUMERICS = {"text_classification": ("plain", "int8", "int4", "bf16", "fp16", "binary", "ternary", "mixed", "sparse",
                                    "sparse_int8"),
            "causal_lm": ("plain", "int8", "int4", "bf16", "binary", "ternary", "mixed", "sparse", "sparse_int8")}
TASKS = tuple(NUMERICS)
TOLERANCE = {"plain": 0.25, "fp32": 1e-3, "bf16": 0.25, "fp16": 0.1, "binary": 0.25, "ternary": 0.25}
_PACKED = {"int8": "int8", "int4": "int4", "sparse_int8": "int8", "binary": "binary", "ternary": "ternary",
           "mixed": "mixed"}
"""numerics of language models that are another path → how their weights are packed"""
_FEW_BITS = ("int4", "binary", "ternary", "mixed")
"""numerics of classifiers whose weights lie several to a byte"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="of plain and sparse; auto: the faster, timed here")


def available() -> str | None:
    return None


def export(folder: Path, source: Path, config: dict[str, Any], numerics: str, calibration: list[str],
           max_length: int, task: str = "text_classification") -> dict[str, Any]:
    """Write config, weights, adapter, tokenizer and engine.json; facts: `milliseconds` [1 row, 32 rows] of what was timed; of a
    language model those of `_torch_decoder.export`.
    """
    precision: str = {"bf16": "bf16", "fp16": "fp32"}.get(numerics, Config.model_validate(config).precision)
    if task == "causal_lm":
        facts = ({"precision": _PACKED[numerics], **_torch_decoder.export_packed(folder, source, _PACKED[numerics])}
                 if numerics in _PACKED else _torch_decoder.export(folder, source, precision, max_length))
        facts |= _sparse_torch.pack_file(folder) if numerics in ("sparse", "sparse_int8") else {}
        return _graph.note(folder, engine="torch_eager", task=task, numerics=numerics, **{"packed": _packed(numerics), **facts})
    module: Any = text_classification.load_model(source)
    if numerics in ("int8", "sparse_int8"):
        matrices = _int8_torch.write(module, source, folder)
        stored = _sparse_torch.pack_file(folder) if numerics == "sparse_int8" else {}
        return _graph.note(folder, engine="torch_eager", task=task, numerics=numerics, packed="packed", precision="int8",
                           matrices=matrices, **stored)
    if numerics in _FEW_BITS:
        return _graph.note(folder, engine="torch_eager", task=task, numerics=numerics,
                           **_few_bits_torch.write(module, source, folder, numerics))
    milliseconds: dict[str, list[float]] = {}
    if precision == "auto":
        runs = {"fp32": _runner(module), "bf16": _runner(copy.deepcopy(module).to(_dtype("bf16")))}
        precision, milliseconds = _graph.fastest(runs, module.config.vocab_size, max_length)
    write(module, source, folder, _half(module) if numerics == "fp16" else _dtype(precision))
    stored = _sparse_torch.pack_file(folder) if numerics == "sparse" else {}
    return _graph.note(folder, engine="torch_eager", task=task, numerics=numerics, packed=_packed(numerics), precision=precision,
                       milliseconds=milliseconds, **stored)


def load(folder: Path, threads: int) -> _graph.Run | Decoder:
    """A run of logits [B, C]; of a language model its decoder."""
    set_threads(threads)
    notes = _graph.noted(folder)
    if notes.get("task") == "causal_lm":
        numerics = notes["numerics"]
        return (_torch_decoder.load_packed(folder, _PACKED[numerics]) if numerics in _PACKED
                else _torch_decoder.load(folder, notes["precision"], sparse=numerics == "sparse"))
    if notes["numerics"] in _FEW_BITS:
        return _runner(_few_bits_torch.read(folder))
    return _runner(_int8_torch.read(folder) if notes["precision"] == "int8" else read(folder, _dtype(notes["precision"])))


def set_threads(threads: int) -> None:
    """PyTorch's threads are the process's, whatever is loaded."""
    import torch

    torch.set_num_threads(threads)


def _runner(model: torch.nn.Module) -> _graph.Run:
    import torch

    module = _graph.logits_only(model)

    def run(inputs: _graph.Inputs) -> Any:
        with torch.inference_mode():
            return module(**{name: torch.from_numpy(values) for name, values in inputs.items()}).numpy()

    return run


def _packed(numerics: str) -> str:
    return "plain" if numerics == "plain" else "stored" if numerics in ("fp16", "sparse", *_few_bits_torch.STORED) else "packed"


def _half(module: Any) -> torch.dtype:
    """float16, if it holds every weight."""
    import torch

    largest = max(float(parameter.abs().max()) for parameter in module.parameters())
    if largest > torch.finfo(torch.float16).max:
        raise TrimtuneError(f"torch_eager: fp16 was asked for, and the largest weight is {largest:.3g}.",
                            "fp16 holds numbers up to 65,504.", "Use bf16, which reaches as far as float32.")
    return torch.float16


def _dtype(precision: str) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
