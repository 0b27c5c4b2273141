"""Does anything on this CPU run faster for zeros? Every way that is installed, against the dense product, taking turns.

    python bench/sparse_kernels.py --json bench/results/sparse_kernels.json

- torch: CSR times dense, and 2:4 semi-structured, for the products of a small encoder (384 → 1,536 and back);
- OpenVINO: an int8 model whose linear layers are 80% zeros, with and without CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE;
- ONNX Runtime: a model in float16, and one product in bfloat16: what the trim bf16 would be there.

Ratios above 1 mean slower than dense. A way that fails is told with its cause.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from trimtune.engines import _graph, _int8_torch, _onnx_graph, _onnx_session, _openvino_int8, onnx_runtime, openvino_ir
from trimtune.measure import _machine
from trimtune.process import threads
from trimtune.study import data
from trimtune.study.model import locate
from trimtune.tasks import text_classification as task
from trimtune.trim import _grids, _zeros

SHAPES = ((32, 384, 1536), (32, 1536, 384), (1024, 384, 1536))
"""tokens, inputs, outputs"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", default="torch,openvino,onnx")
    asked = parser.parse_args()
    torch.set_num_threads(threads())
    lines: list[dict[str, Any]] = []
    with TemporaryDirectory() as home, torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in asked.parts.split(","):
            found = {"torch": of_torch, "openvino": of_openvino, "onnx": of_onnx}[part](Path(home))
            for line in found:
                print("  ".join(f"{key} {value}" for key, value in line.items()), flush=True)
            lines += found
    if asked.json:
        asked.json.write_text(json.dumps({"machine": _machine.describe(), "threads": threads(), "lines": lines}, indent=1) + "\n",
                              encoding="utf-8")


def in_turns(ways: Mapping[str, Callable[[], object]], turns: int = 30) -> dict[str, dict[str, float]]:
    """Milliseconds of each way (median), and its ratio to the first."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 2):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if turn > 1:
                taken[name].append((time.perf_counter() - started) * 1000)
    first = median(next(iter(taken.values())))
    return {name: {"ms": round(median(found), 4), "ratio": round(median(found) / first, 2)} for name, found in taken.items()}


def of_torch(home: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for rows, inner, outer in SHAPES:
        torch.manual_seed(0)
        x, weight = torch.randn(rows, inner), torch.randn(outer, inner)
        for sparsity in (0.8, 0.9, 0.95):
            (gone,) = _zeros.lowest([weight.abs()], sparsity, "model")
            thin = weight.masked_fill(gone, 0)
            compressed, x_bf16, thin_bf16 = thin.to_sparse_csr(), x.bfloat16(), thin.bfloat16()
            int8 = _int8_torch.linear(*_grids.quantize8(thin), None)
            ways = {"dense": partial(torch.nn.functional.linear, x, thin),
                    "dense bf16": partial(torch.nn.functional.linear, x_bf16, thin_bf16), "dense int8": partial(int8, x),
                    "csr": partial(by_columns, x, compressed),
                    "csr as linear": partial(torch.nn.functional.linear, x, compressed)}
            shape = f"{rows}×{inner}→{outer}, {sparsity:.0%} zeros"
            lines += [{"way": f"torch {name}", "what": shape, **found} for name, found in in_turns(ways).items()]
    (gone,) = _zeros.lowest([weight.abs()], 0.5, "2:4")
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        try:
            half = torch.sparse.to_sparse_semi_structured(weight.masked_fill(gone, 0).to(dtype))
            torch.nn.functional.linear(x.to(dtype), half)
            lines.append({"way": f"torch 2:4 {dtype}", "what": "runs on this CPU"})
        except (RuntimeError, NotImplementedError, AssertionError) as error:
            lines.append({"way": f"torch 2:4 {dtype}", "what": f"refused: {str(error).splitlines()[0][:160]}"})
    return lines


def by_columns(x: torch.Tensor, compressed: torch.Tensor) -> torch.Tensor:
    """x Wᵀ with a sparse W: its kernel is quick where each input's values for all tokens lie together."""
    return (compressed @ x.t().contiguous()).t().contiguous()


def _with_zeros(sparsity: float) -> Any:
    model: Any = task.load_model(locate("minilm"))
    found = _zeros.layers(model)
    if sparsity:
        for layer, gone in zip(found.values(), _zeros.lowest([layer.weight.abs() for layer in found.values()], sparsity, "row"),
                               strict=True):
            layer.weight.data.masked_fill_(gone, 0)
    return model


def of_openvino(home: Path) -> list[dict[str, Any]]:
    openvino = openvino_ir._openvino()
    from trimtune.records import DataSpec

    texts = data.read(DataSpec(train="helpdesk"), seed=0).train.texts[:64]
    lines: list[dict[str, Any]] = []
    for sparsity in (0.8,):
        with torch.inference_mode(False):
            graph = _openvino_int8.quantized(openvino_ir._traced(_with_zeros(sparsity), 64), locate("minilm"), texts, 64)
        weights = [node.get_data() for node in graph.get_ordered_ops()
                   if node.get_type_name() == "Constant" and node.get_element_type() == openvino.Type.i8]
        zeros = [float((weight == 0).mean()) for weight in weights if weight.ndim == 2]
        runs = {}
        for name, more in {"dense": {}, "sparse 0.5": {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": 0.5},
                           "sparse 0.7": {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": 0.7}}.items():
            settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads(), "PERFORMANCE_HINT": "LATENCY",
                        "NUM_STREAMS": 1, **more}
            runs[name] = openvino.compile_model(graph, "CPU", settings).create_infer_request()
        for batch in (1, 32):
            inputs = list(_graph.rows(batch, 32, 30000).values())
            ways = {name: partial(run.infer, inputs) for name, run in runs.items()}
            what = f"{batch} rows of 32, {sparsity:.0%} zeros asked, {min(zeros):.2f} to {max(zeros):.2f} in int8"
            lines += [{"way": f"openvino int8 {name}", "what": what, **found} for name, found in in_turns(ways).items()]
    return lines


def of_onnx(home: Path) -> list[dict[str, Any]]:
    """A model in float16 by ONNX Runtime's own converter; a product in bfloat16."""
    import onnx
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as Lacking
    from onnxruntime.transformers import float16

    with torch.inference_mode(False):
        model: Any = task.load_model(locate("minilm"), attention="eager")
        graph = _onnx_graph.classifier(model, 20, 64, "bench")
    files = {"fp32": graph.SerializeToString()}
    files["fp16"] = float16.convert_float_to_float16(graph, keep_io_types=True, disable_shape_infer=True).SerializeToString()
    lines, runs = [], {}
    for name, content in files.items():
        (home / f"{name}.onnx").write_bytes(content)
        runs[name] = onnx_runtime._runner(home / f"{name}.onnx", threads())
    for batch in (1, 32):
        ways = {name: partial(run, _graph.rows(batch, 32, 30000)) for name, run in runs.items()}
        lines += [{"way": f"onnx_runtime {name}", "what": f"{batch} rows of 32", "mb": round(len(files[name]) / 1e6, 1), **found}
                  for name, found in in_turns(ways).items()]
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.BFLOAT16, [32, 384]) for name in "xy")
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [384, 384], [0.5] * 384 * 384)
    product = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "product", [x], [y], [weight])
    made = onnx.helper.make_model(product, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(made, home / "bf16.onnx")
    try:
        _onnx_session.opened(home / "bf16.onnx", threads())
        lines.append({"way": "onnx_runtime bf16", "what": "one product runs"})
    except Lacking as error:
        lines.append({"way": "onnx_runtime bf16", "what": f"refused: {str(error).splitlines()[0][:200]}"})
    return lines


if __name__ == "__main__":
    main()
