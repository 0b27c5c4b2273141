"""tensorrt_plan: the classifier as a TensorRT plan, built for this machine's NVIDIA GPU and run there; only if a study names it.

It has not been run on a GPU yet: it is written against TensorRT's documented Python API (10 and 11), and tested up to the call
that builds. So it must be named, and its export must pass the same check against PyTorch as every engine's.

Use it where the model will run on the GPU at hand, or on others of its name; not for a folder that has to move: a plan runs only
on the kind of GPU and the version of TensorRT that it was built with, and `load` refuses others by name.

    logits_BC = plan(input_ids [B, T] int64, attention_mask [B, T] int64), float32; B ≥ 1, 1 ≤ T ≤ the model's positions

The graph is that of `onnx_runtime`, traced in the number format that is to run, since TensorRT 11 chooses none itself. Kernels
are chosen for buckets of shapes: one row and up to `batch` rows, each for rows up to 32 tokens, up to the study's `max_length`
and up to the model's positions; more rows run in several calls.
`precision: auto` builds float32, float16 and, from Ampere on, bf16, times them with 1 and 32 rows, copies included, and keeps the
faster. |Δlogit| to PyTorch in float32, checked at export: float32 (without TF32) ≤ 1e-3, float16 ≤ 0.1, bf16 ≤ 0.25; a format
beyond is left out, or refused if the study named it. The trims bf16 and fp16 ask for these formats whatever the clock says.
int8_static and fp8 are products of the float16 graph in 8 bits, with scales that training rows gave on the CPU, by ONNX Runtime:
symmetric, since TensorRT knows no zero points; their |Δlogit| is recorded. fp8 needs Ada or later (compute capability 8.9).

`timing.cache` beside the plan holds the times of the kernels that were tried: the builds of one export share it, and a later
export on the same GPU is faster if the study names it in `timing_cache`. What is read as memory is the process's own, without the
GPU's. LoRA is merged; prefixes and prompts become constants. It refuses models of 2 GB and more, bf16 before Ampere, and a timing
cache that isn't of this GPU and version.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtune.engines import _cuda_driver, _graph, _onnx_calibration, _onnx_graph, _onnx_static, _shape_buckets, _tensorrt
from trimtune.engines._onnx_session import opened
from trimtune.errors import TrimtuneError
from trimtune.tasks import text_classification

if TYPE_CHECKING:
    import torch

NUMERICS = {"text_classification": ("plain", "bf16", "fp16", "int8_static", "fp8")}
TASKS = tuple(NUMERICS)
FORMAT = "tensorrt"
TOLERANCE = {"plain": 0.25, "fp32": 1e-3, "fp16": 0.1, "bf16": 0.25}
ONLY_IF_NAMED = True
SWEPT = False
"""it runs on the GPU"""
_PLAN, _TIMINGS = "model.plan", "timing.cache"
PACKAGES = ("tensorrt", "onnx", "onnxscript", "onnxruntime")
_FORMS: dict[str, Callable[[], _onnx_static.Form]] = {"int8_static": _onnx_static.signed,
                                                      "fp8": partial(_onnx_static.fp8, fused=True)}
_CAPABILITY = {"bf16": ((8, 0), "Ampere"), "fp8": ((8, 9), "Ada")}
"""the least compute capability, and the first GPUs that have it"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field("auto", description="auto: the fastest, timed at export")
    batch: int = Field(32, ge=1, le=1024, description="rows that run at once at most; more are run in several calls")
    workspace_mb: int = Field(1024, ge=1, description="GPU memory (10^6 bytes) that one kernel may take beside its inputs")
    opset: int = Field(20, ge=18, le=23, description="ONNX operator set of the graph that the plan is built from")
    timing_cache: str = Field("", description="path of the timing.cache of an earlier plan of this GPU, to build faster")


def available() -> str | None:
    """What lacks of the packages, a CUDA device, and a PyTorch that can carry rows to it; nothing heavy is imported."""
    lacking = _graph.not_installed(PACKAGES, "tensorrt")
    if lacking:
        return lacking
    reason = _cuda_driver.lacking()
    if reason:
        return f"{reason}; it runs on NVIDIA GPUs only (pip install can't bring one)"
    found = importlib.util.find_spec("torch")
    if not found or not list(Path(str(found.origin)).parent.joinpath("lib").glob("libtorch_cuda*.so")):
        return "this PyTorch was built without CUDA: pip install the one for your CUDA version, as pytorch.org tells"
    return None


def built_for() -> dict[str, str]:
    """What an export's files are bound to, for the key of its step: another GPU or TensorRT builds anew."""
    return {"gpu": _cuda_driver.device_name(), "tensorrt": str(_graph.versions(["tensorrt"])["tensorrt"])}


def export(folder: Path, source: Path, config: dict[str, Any], numerics: str, calibration: list[str],
           max_length: int, task: str = "text_classification") -> dict[str, Any]:
    """Write model.plan, timing.cache, tokenizer, config and engine.json.

    Facts: `difference` is the checked |Δlogit|, `milliseconds` the timings [1 row, 32 rows] that decided, `left_out` the formats
    that answered too differently with their figures, `buckets` the shapes, `gpu` and `tensorrt` what the plan is bound to.
    """
    wanted = Config.model_validate(config)
    model: Any = text_classification.load_model(source, attention="eager")
    shapes = _shape_buckets.buckets(wanted.batch, max_length, _shape_buckets.longest_row(model, max_length))
    timings = _read(wanted.timing_cache)
    plans: dict[str, bytes] = {}
    told: dict[str, Any] = {}
    for precision in _formats(numerics if numerics != "plain" else wanted.precision, _tensorrt.capability()):
        if numerics in _FORMS:
            graph, told = graph_in_8_bits(model, numerics, wanted.opset, source, calibration, max_length, folder)
        else:
            graph = graph_of(model, precision, wanted.opset, max_length)
        plans[precision], timings = _tensorrt.build(graph.SerializeToString(), shapes, wanted.workspace_mb * 10**6, timings)
    runs = {precision: _tensorrt.runner(plan, shapes) for precision, plan in plans.items()}
    allowed = {**TOLERANCE, **dict.fromkeys(_FORMS, sys.float_info.max)}
    differences, left_out = _graph.passing(runs, model, max_length, allowed, "tensorrt_plan")
    chosen = next(iter(differences))
    milliseconds: dict[str, list[float]] = {}
    if len(differences) > 1:
        chosen, milliseconds = _graph.fastest({name: runs[name] for name in differences}, model.config.vocab_size, max_length)
    (folder / _PLAN).write_bytes(plans[chosen])
    (folder / _TIMINGS).write_bytes(timings)
    _graph.write_around(folder, source, model.config)
    return _graph.note(folder, engine="tensorrt_plan", task=task, numerics=numerics,
                       packed="plain" if numerics == "plain" else "packed", precision=chosen.removesuffix("_static"),
                       difference=differences[chosen], milliseconds=milliseconds, left_out=left_out,
                       buckets=[[list(shape) for shape in bucket] for bucket in shapes], **told, **built_for())


def load(folder: Path, threads: int) -> _graph.Run:
    """A run of logits [B, C] on this machine's GPU; `threads` of the CPU play no part.

    Raises:
        TrimtuneError: it can't run here, or the plan was built for another GPU or version of TensorRT.
    """
    notes, reason = _graph.noted(folder), available()
    if reason:
        raise TrimtuneError(f"{folder}: tensorrt_plan is not available here: {reason}.",
                            f"The plan was built for {_place(notes)}.", "Load it there, or take another engine.")
    refuse_foreign(notes, built_for())
    shapes = [_shape_buckets.Bucket(*(tuple(shape) for shape in bucket)) for bucket in notes["buckets"]]
    return _tensorrt.runner((folder / _PLAN).read_bytes(), shapes)


def refuse_foreign(notes: dict[str, Any], here: dict[str, str]) -> None:
    """Raises TrimtuneError if a plan was built for another GPU, or by another TensorRT, than are here."""
    if any(notes[name] != here[name] for name in here):
        raise TrimtuneError(f"tensorrt_plan: the plan was built for {_place(notes)}; here is {_place(here)}.",
                            "A plan runs only on the kind of GPU and with the version of TensorRT that built it.",
                            "Run the study here again: it builds this machine's own plan.")


def graph_of(model: Any, precision: str, opset: int, max_length: int) -> Any:
    """The graph [B, T] → logits [B, C] float32 of a model, its weights and products in a format, as an onnx.ModelProto."""
    cast = model if precision == "fp32" else copy.deepcopy(model).to(_dtype(precision))
    return _onnx_graph.classifier(cast, opset, max_length, "tensorrt_plan")


def graph_in_8_bits(model: Any, numerics: str, opset: int, source: Path, texts: Sequence[str], max_length: int,
                    folder: Path) -> tuple[Any, dict[str, Any]]:
    """The float16 graph with its products in int8 or fp8, and the facts of its calibration, which writes into `folder`
    for a moment."""
    from trimtune.process import threads

    graph = graph_of(model, "fp16", opset, max_length)
    path, form = folder / "calibrating.onnx", _FORMS[numerics]()
    try:
        grids, told = _onnx_calibration.calibrated(graph, path, partial(opened, threads=threads()), source, texts,
                                                   max_length, form.grid)
    finally:
        path.unlink(missing_ok=True)
    _onnx_static.quantize(graph, grids, form)
    return graph, told


def _formats(wanted: str, capability: tuple[int, int]) -> list[str]:
    """The formats to be built: the one that is wanted, or for `auto` those that this GPU multiplies.

    Raises:
        TrimtuneError: it can't multiply the one that is wanted.
    """
    least, since = _CAPABILITY.get(wanted, ((0, 0), ""))
    if capability < least:
        raise TrimtuneError(f"tensorrt_plan: {wanted} was asked for, which this GPU can't multiply (compute capability "
                            f"{'.'.join(map(str, capability))}).", f"Allowed here: fp32, fp16; {wanted} from {since} on "
                            f"({'.'.join(map(str, least))}).", f"Leave {wanted} out, or write precision: auto.")
    bf16 = ["bf16"] if capability >= _CAPABILITY["bf16"][0] else []
    return ["fp32", "fp16", *bf16] if wanted == "auto" else [wanted]


def _read(timing_cache: str) -> bytes:
    path = Path(timing_cache).expanduser()
    if timing_cache and not path.is_file():
        raise TrimtuneError(f"tensorrt_plan: timing_cache: {timing_cache} is no file.",
                            "Allowed: the timing.cache beside an earlier plan of this GPU, or nothing.",
                            "Leave timing_cache out: the export then times every kernel itself.")
    return path.read_bytes() if timing_cache else b""


def _place(facts: dict[str, Any]) -> str:
    return f"{facts.get('gpu')} with TensorRT {facts.get('tensorrt')}"


def _dtype(precision: str) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
