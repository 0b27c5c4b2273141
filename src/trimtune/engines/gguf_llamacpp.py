"""gguf_llamacpp: a language model as one GGUF file, run by llama.cpp on the CPU, in float, 8 or 4 bits.

Use it where a language model must be small, or run by other people's tools (llama.cpp, Ollama, LM Studio); not for prefix, prompt
and p_tuning, whose virtual tokens a GGUF file can't hold, nor for architectures that aren't Llama-like (llama, mistral without
a window, qwen2, qwen3) or GPT-2-like.

    logits_BTV of whole rows [B, T], and logits_BV after each next token, float32, from a cache of keys and values [B, H, S, D]

`precision: auto` times F32 and F16 files at export, a prompt and its next tokens, and keeps the faster. F32 computes attention
and its cache in float32, all others keep an F16 cache. int8 is Q8_0: blocks of 32 weights in 8 bits with a float16 scale. int4 is
Q4_K_M: blocks of 256 weights in 4 bits with 6-bit scales and minima (Q4_K), some tensors in 6 bits (Q6_K). Rows that don't divide
into blocks get the type that llama.cpp falls back to: the facts count the types that the file has. With quantized
weights, activations are quantized to 8 bits per block while running.

    w ≈ d · q (Q8_0)        w ≈ d · s · q - e · m (Q4_K: s and m in 6 bits per 32 weights, d and e float16 per 256)

Exports in floating point are checked against PyTorch in float32: |Δlogit| ≤ 1e-3 for F32 of Llama-likes, ≤ 0.25 for F16 and
for GPT-2-likes, whose GELU llama.cpp reads from a table in float16. The tokenizer goes into the file if it can be said there
(byte-level BPE, SentencePiece-like BPE); llama.cpp's tokens of sample texts are compared with transformers', and the share that
agrees is in the facts. LoRA and IA3 are merged. It refuses virtual tokens, settings that llama.cpp would run as others, and what
trims leave in shapes that no config says (low_rank, GPT-2 with fewer heads).

Source: ggml-org/ggml, docs/gguf.md (2023), the format; ggml-org/llama.cpp, pull request 1684 (2023), the k-quants.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtune.engines import _decoding, _gguf_file, _gguf_header, _gguf_vocabulary, _graph, _llama_cpp
from trimtune.engines._llama_decoder import LlamaDecoder
from trimtune.engines._torch_decoder import TorchDecoder
from trimtune.errors import TrimtuneError
from trimtune.process import threads as cores
from trimtune.tasks import causal_lm
from trimtune.tasks._inputs import reading_in
from trimtune.trim import _groups
from trimtune.trim._model_folder import write_beside

NUMERICS = {"causal_lm": ("plain", "int8", "int4", "fp16")}
TASKS = tuple(NUMERICS)
FORMAT = "gguf"
TOLERANCE = {"plain": 0.25, "fp32": 0.25, "fp16": 0.25}
PLAIN_SHAPES = True
"""llama.cpp finds the shape of each tensor from the file's sizes, as transformers does from a config"""
_EXACT = 1e-3
"""allowed |Δlogit| of F32 files where llama.cpp computes in float32 throughout: not in GPT-2, whose GELU is a float16 table"""
_FILE = "model.gguf"
_QUANTIZED = {"int8": "Q8_0", "int4": "Q4_K_M"}
PACKAGES = ("gguf", "llama_cpp")


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["auto", "fp32", "fp16"] = Field("auto", description="of plain numerics; auto: the faster, timed here")


def available() -> str | None:
    return _graph.not_installed(PACKAGES, "gguf")


def export(folder: Path, source: Path, config: dict[str, Any], numerics: str, calibration: list[str],
           max_length: int, task: str = "causal_lm") -> dict[str, Any]:
    """Write model.gguf, tokenizer, config and engine.json.

    Facts: `types` counts the file's tensors by type, `difference` is |Δlogit| against PyTorch in float32 (judged for plain
    numerics, recorded for others), `milliseconds` the timings [a prefill, 8 tokens after it] that decided, `tokenizer` its kind
    in the file, `tokenizer_agrees` the share of sample texts of which llama.cpp makes the same tokens; where the file has no
    tokenizer, `tokenizer_lacks` says why.

    Raises:
        TrimtuneError: virtual tokens, an architecture that llama.cpp would run as another, or a tokenizer with tokens that the
            model doesn't know.
        StepFailed: llama.cpp answers differently from PyTorch, or can't.
    """
    if numerics == "int4" and (group := _groups.asked(source, 0)):
        raise TrimtuneError(f"gguf_llamacpp: int4 in groups of {group} was asked for.", "Q4_K_M has groups of its own.",
                            "Leave group out, or use onnx_runtime, openvino_ir or torch_eager.")
    wanted, module = Config.model_validate(config), _merged(source)
    tokenizer, vocabulary = causal_lm.load_tokenizer(source), module.config.vocab_size
    layout = _gguf_file.layout(module)
    causal_lm.check_vocabulary(tokenizer, vocabulary)

    def written(name: str) -> dict[str, Any]:
        return _gguf_file.write(folder / f"{name}.gguf", module, tokenizer, _template(source, tokenizer), half=name == "fp16")

    precision, milliseconds = numerics, dict[str, list[float]]()
    if numerics in ("plain", "fp16"):
        asked = "fp16" if numerics == "fp16" else wanted.precision
        tried = ("fp32", "fp16") if asked == "auto" else (asked,)
        facts = [written(name) for name in tried][-1]
        precision = tried[0]
        if len(tried) > 1:
            decoders = {name: LlamaDecoder(folder / f"{name}.gguf", cores(), name == "fp32") for name in tried}
            precision, milliseconds = _decoding.fastest(decoders, vocabulary, max_length)
        (folder / f"{precision}.gguf").rename(folder / _FILE)
    else:
        facts = written("fp32")
        _llama_cpp.quantize(folder / "fp32.gguf", folder / _FILE, _QUANTIZED[numerics], cores())
    for left in folder.glob("fp*.gguf"):
        left.unlink()
    exact = precision == "fp32"
    allowed = _EXACT if exact and layout.architecture != "gpt2" else TOLERANCE.get(precision, sys.float_info.max)
    decoder = LlamaDecoder(folder / _FILE, cores(), exact)
    difference = _decoding.check(decoder, TorchDecoder(module), vocabulary, allowed, "gguf_llamacpp")
    if facts["tokenizer"] != "none":
        found = _llama_cpp.tokenized(folder / _FILE, _gguf_vocabulary.TEXTS)
        facts["tokenizer_agrees"] = _gguf_vocabulary.agreement(tokenizer, found)
    module.config.save_pretrained(folder)
    write_beside(module, source, folder, causal_lm)
    return _graph.note(folder, engine="gguf_llamacpp", task=task, numerics=numerics,
                       packed="plain" if numerics == "plain" else "packed", precision=precision, difference=difference,
                       milliseconds=milliseconds, types=_gguf_header.types(folder / _FILE), **facts)


def load(folder: Path, threads: int) -> LlamaDecoder:
    return LlamaDecoder(folder / _FILE, threads, _graph.noted(folder)["precision"] == "fp32")


def _merged(source: Path) -> Any:
    """The model with its adapter in its weights.

    Raises:
        TrimtuneError: an adapter that stands beside them.
    """
    from peft import PeftModel

    module = causal_lm.load_model(source)
    if isinstance(module, PeftModel):
        kind = str(module.active_peft_config.peft_type.value).lower()
        raise TrimtuneError(f"gguf_llamacpp: the model was tuned by {kind}, whose virtual tokens stand beside the weights.",
                            "A GGUF file holds weights alone: full, lora, ia3 and the like, which are merged.",
                            "Tune with lora, or use another engine, such as torch_eager.")
    return module


def _template(source: Path, tokenizer: Any) -> str:
    """The chat template that the model was tuned with: its study's own, else the tokenizer's."""
    found = reading_in(source).get("template") or tokenizer.chat_template
    return found if isinstance(found, str) else ""
