"""onnx_runtime: the model as one ONNX graph with dynamic batch and length, run by ONNX Runtime on the CPU.

Use it when the model must run without PyTorch, in any language; not when the CPU has bf16 units and size doesn't matter:
ONNX Runtime computes in float32 or int8 on CPUs, so an engine that has bf16 may be faster.

    logits_BC = graph(input_ids [B, T] int64, attention_mask [B, T] int64), float32; B ≥ 1, 1 ≤ T ≤ the model's positions

Plain numerics are float32, |Δlogit| ≤ 1e-3 against PyTorch, checked at export on several shapes and paddings. int8 is ONNX
Runtime's dynamic quantization: weights of MatMul per output channel and the embeddings per tensor, int8 in the file;
activations uint8 per tensor and batch, so rows of one batch share a scale and a row's logits depend a little on its
neighbors. The head is int8 as well. On CPUs without VNNI, weights use 7 bits, since 8-bit sums would saturate.
int8_static is int8 whose activations keep scales that training rows gave (`trimtune explain int8_static`), so no row depends on
its neighbors; pooler and head stay float32. It is written as QuantizeLinear and DequantizeLinear around each product, which are
standard operators, and ONNX Runtime runs each as one product of integers; other forms were not timed.
fp8 is stored in numbers of E4M3 with one scale per matrix, from opset 19 on: a quarter of the bytes. No CPU multiplies fp8, so
weights are unpacked to float32 when the session starts, and what enters a product is rounded to fp8 and back in each call.
int4 is weights alone, in blocks of 32 with a scale each, their products summed in 8-bit integers; embeddings int8 per tensor.
mixed: each linear layer in the format that config.json names, as the trim of that name chose it: int8 as above, int4 on the very
grid of the trim (a scale and an offset per group, inputs and sums in float32), float as it is; head float32. Layers in int8 round
their inputs by tensor and batch, where the trim judged them by token, so a row that was nearly tied may answer otherwise.

A language model's graph takes the cache of keys and values in and hands it out: logits_BKV at the K places asked for. Its int8
and int4 are weights alone, in blocks of 32 with a scale each, their products summed in 8-bit integers.

LoRA is merged; prefixes and prompts become constants of the graph, of a language model the cache that rows begin with.
Operators are fused when the session starts, so the file stays portable. Threads spin within a call and stop with it: an idle
session takes no time from its neighbors.
It refuses graphs of 2 GB and more, which ONNX can't hold in one file.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from trimtune.engines import _graph, _onnx_calibration, _onnx_decoder, _onnx_graph, _onnx_mixed, _onnx_static
from trimtune.engines._onnx_session import opened
from trimtune.tasks import text_classification

if TYPE_CHECKING:
    from trimtune.engines._decoding import Decoder

NUMERICS = {"text_classification": ("plain", "int8", "int8_static", "int4", "mixed", "fp8"),
            "causal_lm": ("plain", "int8", "int4")}
TASKS = tuple(NUMERICS)
FORMAT = "onnx"
TOLERANCE = {"plain": 1e-3}
_GRAPH = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    opset: int = Field(20, ge=18, le=23, description="ONNX operator set of the graph; 20 is the first with Gelu as one operator")


def available() -> str | None:
    return _graph.not_installed(PACKAGES, "onnx")


def export(folder: Path, source: Path, config: dict[str, Any], numerics: str, calibration: list[str],
           max_length: int, task: str = "text_classification") -> dict[str, Any]:
    """Write model.onnx, tokenizer, config and engine.json; facts tell `difference`, the checked |Δlogit| of the float32 graph."""
    opset = Config.model_validate(config).opset
    if task == "causal_lm":
        facts = _onnx_decoder.export(folder, source, numerics, opset, TOLERANCE["plain"], partial(opened, threads=_threads()))
        return _graph.note(folder, engine="onnx_runtime", task=task, numerics=numerics,
                           packed="plain" if numerics == "plain" else "packed", **facts)
    # eager attention: SDPA is exported with a guard against NaN around each softmax, which costs time and is never needed here
    model = text_classification.load_model(source, attention="eager")
    path = folder / _GRAPH
    graph = _onnx_graph.classifier(model, opset, max_length, "onnx_runtime")
    path.write_bytes(graph.SerializeToString())
    difference = _graph.check(_runner(path, _threads()), model, max_length, TOLERANCE["plain"], "onnx_runtime")
    told: dict[str, Any] = {}
    settings = model.config
    if numerics in ("int8_static", "fp8"):
        del model  # calibration holds a session of the graph instead, which has the same weights
        form = _onnx_static.fp8(fused=False) if numerics == "fp8" else _onnx_static.unsigned(127 if has_vnni() else 63)
        grids, told = _onnx_calibration.calibrated(graph, path, partial(opened, threads=_threads()), source, calibration,
                                                   max_length, form.grid)
        path.write_bytes(graph.SerializeToString())
        del graph  # what quantizes reads the file: one copy less in memory
        _quantize_static(path, grids, form)
    elif numerics == "mixed":
        told = _onnx_mixed.quantize(graph, model, path, reduced=not has_vnni())
    elif numerics != "plain":
        _quantize(graph, path, numerics, source)
    _graph.write_around(folder, source, settings)
    precision = {"plain": "fp32", "int8_static": "int8", "fp8": "fp32"}.get(numerics, numerics)
    packed = {"plain": "plain", "fp8": "stored"}.get(numerics, "packed")
    return _graph.note(folder, **{"engine": "onnx_runtime", "task": task, "numerics": numerics, "packed": packed,
                                  "precision": precision, "difference": difference, **told})


def load(folder: Path, threads: int) -> _graph.Run | Decoder:
    """A run of logits [B, C]; of a language model its decoder."""
    if _graph.noted(folder).get("task") == "causal_lm":
        return _onnx_decoder.load(folder, partial(opened, threads=threads))
    return _runner(folder / _GRAPH, threads)


def _runner(path: Path, threads: int) -> _graph.Run:
    session = opened(path, threads)

    def run(inputs: _graph.Inputs) -> Any:
        return session.run(None, inputs)[0]

    return run


def _quantize(graph: Any, path: Path, numerics: str, source: Path) -> None:
    """Write the graph in int8; or with int4 for its products and int8 for its embeddings."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if numerics == "int8":
        quantize_dynamic(graph, path, per_channel=True, weight_type=QuantType.QInt8, reduce_range=not has_vnni())
        return
    path.write_bytes(graph.SerializeToString())
    path.write_bytes(_onnx_decoder.packed(_with_int8_embeddings(path), numerics, source).SerializeToString())


def _quantize_static(path: Path, grids: _onnx_static.Grids, form: _onnx_static.Form) -> None:
    """Write a file's float32 graph anew, with products in 8 bits on these grids, and int8 embeddings."""
    embedded = _with_int8_embeddings(path)
    _onnx_static.quantize(embedded, grids, form)
    path.write_bytes(embedded.SerializeToString())


def _with_int8_embeddings(path: Path) -> Any:
    """The graph of a file with int8 embeddings, one scale each, as an onnx.ModelProto."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    made = path.with_suffix(".embedded")
    quantize_dynamic(path, made, op_types_to_quantize=["Gather"], weight_type=QuantType.QInt8)
    embedded = onnx.load(made)
    made.unlink()
    return embedded


def has_vnni() -> bool:
    """Whether this CPU sums products of uint8 and int8 in 32 bits; without, AVX2 sums pairs in 16 and saturates."""
    import torch

    return torch.backends.cpu.get_cpu_capability() not in ("AVX2", "DEFAULT") and torch.cpu._is_vnni_supported()


def _threads() -> int:
    from trimtune.process import threads

    return threads()
