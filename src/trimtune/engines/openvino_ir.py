"""openvino_ir: the model as OpenVINO IR with dynamic batch and length, run by OpenVINO's CPU plugin.

Use it on x86 (and recent ARM) CPUs, where it is mostly the fastest of the three; not when the model must run beside a GPU
of another maker, or where installing OpenVINO (180 MB) costs more than the milliseconds are worth.

    logits_BC = graph(input_ids [B, T] int64, attention_mask [B, T] int64), float32; B ≥ 1, 1 ≤ T ≤ the model's positions

`precision: auto` times float32 and bf16 at export, with 1 and 32 rows, and writes the faster into engine.json. A float32 graph
stores float32 weights, |Δlogit| ≤ 1e-3 against PyTorch; a bf16 graph stores float16 weights (half the size, and still
finer than bf16), |Δlogit| ≤ 0.25 (of a language model recorded, and judged by `ship` through perplexity and next tokens).
The trim bf16 asks for the latter whatever the clock says, and is refused where the plugin has no bf16 for this CPU. The trim
fp16 stores float16 weights and runs them in float32, |Δlogit| ≤ 0.1.
int8 is NNCF's post-training quantization for transformers: weights int8 per output channel, activations int8 by ranges seen on
training rows (static), SmoothQuant and bias correction; a row's logits don't depend on its neighbors. What stays in floating
point runs in the measured precision. int8_static is the same with ranges by its settings, where NNCF has that: minmax over all
rows; percentile of each row, and the mean of the rows; mse by NNCF's histogram; entropy is refused. int4 is weights alone, by
NNCF without training rows: a scale per 64 weights, embeddings and the head's last layer int8; products run in the measured
precision.

A language model's graph keeps its cache of keys and values as state: logits_BKV at the K places asked for. Its int8 (a scale
per output channel) and int4 (a scale per 64 weights; embeddings and output layer int8) are weights alone, by NNCF, without
training rows.

Source of SmoothQuant: Xiao et al. 2023 (arXiv 2211.10438), section 4. LoRA is merged; prefixes and prompts become constants,
of a language model the state that rows begin with. It refuses int8 of classifiers without training rows. OpenVINO's and
NNCF's telemetry is kept off.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtune.engines import _graph, _openvino_decoder, _openvino_int8
from trimtune.errors import TrimtuneError
from trimtune.tasks import text_classification
from trimtune.trim import _calibrated

if TYPE_CHECKING:
    import torch

    from trimtune.engines._decoding import Decoder

NUMERICS = {"text_classification": ("plain", "int8", "int8_static", "int4", "bf16", "fp16"),
            "causal_lm": ("plain", "int8", "int4", "bf16", "fp16")}
TASKS = tuple(NUMERICS)
FORMAT = "openvino"
TOLERANCE = {"plain": 0.25, "fp32": 1e-3, "bf16": 0.25, "fp16": 0.1}
_PACKED = {"plain": "plain", "fp16": "stored"}
_GRAPH = "model.xml"
_HINT = {"fp32": "f32", "bf16": "bf16"}
PACKAGES = ("openvino", "nncf")


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: the faster of both, timed at export")
    calibration_rows: int = Field(128, ge=1, le=10_000,
                                  description="training rows, evenly spaced, that set the activations' ranges for int8")


def available() -> str | None:
    return _graph.not_installed(PACKAGES, "openvino")


def export(folder: Path, source: Path, config: dict[str, Any], numerics: str, calibration: list[str],
           max_length: int, task: str = "text_classification") -> dict[str, Any]:
    """Write model.xml, model.bin, tokenizer, config and engine.json.

    Facts: `difference` is the checked |Δlogit| of the float32 graph, `milliseconds` the timings [1 row, 32 rows] that decided,
    `floats` the precision of what int8 and int4 leave in floating point.
    """
    openvino, wanted = _openvino(), Config.model_validate(config)
    precision: str = "fp32" if numerics == "fp16" else wanted.precision
    if numerics == "bf16":
        refuse_bf16(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        precision = "bf16"
    if task == "causal_lm":
        facts = _openvino_decoder.export(openvino, folder, source, numerics, precision, max_length, TOLERANCE["fp32"])
        return _graph.note(folder, engine="openvino_ir", task=task, numerics=numerics, packed=_PACKED.get(numerics, "packed"),
                           **facts)
    model: Any = text_classification.load_model(source)
    graph = _traced(model, max_length)
    difference = _graph.check(_runner(graph, "fp32"), model, max_length, TOLERANCE["fp32"], "openvino_ir")
    told: dict[str, Any] = {}
    if numerics == "int8":
        rows = _calibrated.spaced(calibration, wanted.calibration_rows)
        graph = _openvino_int8.quantized(graph, source, rows, max_length)
    elif numerics == "int8_static":
        graph, told = _openvino_int8.static(graph, source, calibration, max_length)
    elif numerics == "int4":
        graph = _openvino_decoder.packed(graph, numerics, source)
    milliseconds: dict[str, list[float]] = {}
    if precision == "auto":
        runs = {name: _runner(graph, name) for name in _HINT}
        precision, milliseconds = _graph.fastest(runs, model.config.vocab_size, max_length)
    openvino.save_model(graph, folder / _GRAPH, compress_to_fp16=precision == "bf16" or numerics == "fp16")
    _graph.write_around(folder, source, model.config)
    runs_in = {"int8": "int8", "int8_static": "int8", "int4": "int4"}.get(numerics, precision)
    return _graph.note(folder, engine="openvino_ir", task=task, numerics=numerics,
                       packed=_PACKED.get(numerics, "packed"), precision=runs_in,
                       floats=precision, difference=difference, milliseconds=milliseconds, **told)


def refuse_bf16(capabilities: Sequence[str]) -> None:
    """Raises TrimtuneError where the plugin would compute in float32 although it was asked for bf16."""
    if "BF16" not in capabilities:
        raise TrimtuneError(f"openvino_ir: bf16 was asked for, and on this CPU OpenVINO has {', '.join(capabilities)}.",
                            "bf16 needs a CPU with bf16 products (AVX512_BF16, AMX).", "Leave the trim bf16 out here.")


def load(folder: Path, threads: int) -> _graph.Run | Decoder:
    """A run of logits [B, C]; of a language model its decoder."""
    if _graph.noted(folder).get("task") == "causal_lm":
        return _openvino_decoder.load(_openvino(), folder, threads)
    return _runner(folder / _GRAPH, _graph.noted(folder)["floats"], threads)


def _runner(graph: Any, precision: str, threads: int | None = None) -> _graph.Run:
    """Compile an IR file or a graph in memory for the CPU."""
    from trimtune.process import threads as cores

    settings = {"INFERENCE_PRECISION_HINT": _HINT[precision], "INFERENCE_NUM_THREADS": threads or cores(),
                "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    request = _openvino().compile_model(graph, "CPU", settings).create_infer_request()

    def run(inputs: _graph.Inputs) -> Any:
        return request.infer([inputs["input_ids"], inputs["attention_mask"]], share_inputs=True)[0]

    return run


def _traced(model: Any, max_length: int) -> Any:
    """The float32 graph as an openvino.Model."""
    import torch

    openvino = _openvino()
    example = {name: torch.from_numpy(values)
               for name, values in _graph.rows(3, min(11, max_length), model.config.vocab_size, padded=True).items()}
    free = [(name, openvino.PartialShape([-1, -1]), openvino.Type.i64) for name in example]
    with torch.no_grad(), _caches_with_rank():
        return openvino.convert_model(_graph.logits_only(model), example_input=example, input=free)


@contextlib.contextmanager
def _caches_with_rank() -> Iterator[None]:
    """A prefix enters through a key cache that begins empty, of shape [0]; OpenVINO can't join that to [B, H, P, D]."""
    from transformers.cache_utils import DynamicLayer

    original = DynamicLayer.lazy_initialization

    def begin(self: Any, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        original(self, key_states, value_states)
        self.keys, self.values = key_states[..., :0, :], value_states[..., :0, :]

    DynamicLayer.lazy_initialization = begin
    try:
        yield
    finally:
        DynamicLayer.lazy_initialization = original


def _openvino() -> Any:
    """The package, imported without the one that would report its use over the network."""
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino
