"""A classifier's ONNX graph whose linear layers are each in a format of their own, as the trim `mixed` chose them.

    int8    ONNX Runtime's dynamic quantization of that product alone: W int8 per output, x uint8 per tensor and batch
    int4    x Ŵᵀ = x (s (c − 8))ᵀ + (Σ_group x) Zᵀ,  Ŵ[n, k] = s[n, g] (c[n, k] − 8) + z[n, g]      (`trim/_grids.py`)
            x [B, T, K], c [N, K] two to a byte, s and z bf16 [N, K / group]; the first product is MatMulNBits
    float   as it is

MatMulNBits takes an offset per group as well, and then unpacks the matrix in each call. As a product of its own, with the sums of
groups, it costs less and gives the same. Embeddings are int8 per tensor, the head stays float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.errors import StepFailed, TrimtuneError
from trimtune.trim import _few_bits, _grids, _mixing
from trimtune.trim._model_folder import base_of

if TYPE_CHECKING:
    import torch

RUNS = {"int8": "int8", "int4": "int4", "float": "fp32"}
"""the formats that ONNX Runtime has products for, and what runs then"""


def quantize(graph: Any, module: torch.nn.Module, path: Path, reduced: bool) -> dict[str, Any]:
    """Write a float32 graph, an onnx.ModelProto of this module, in the formats that its config names.

    Args:
        reduced: int8 weights keep within ±63, where 8-bit sums would saturate.

    Returns:
        `precision`, the `matrices` that were named and their `bits_per_weight` as stored, scales included.

    Raises:
        TrimtuneError: a format that ONNX Runtime has no product for.
        StepFailed: config.json names no formats, or a layer isn't found in the graph.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    base = base_of(module)
    formats, group = _few_bits.formats_of(base, "onnx_runtime")
    unknown = sorted({*formats.values()} - RUNS.keys())
    if unknown:
        raise TrimtuneError(f"onnx_runtime: mixed was asked for with layers in {', '.join(unknown)}.",
                            f"It runs {', '.join(RUNS)}.", "Write low: int4 for mixed, or use the engine torch_eager.")
    layers = _few_bits.linears(base)
    _separate_bias(graph)
    nodes = _products(graph, layers)
    wanted = [node for name, found in nodes.items() if formats[name] == "int8" for node in found]
    tables = [node.name for node in graph.graph.node if node.op_type == "Gather"]
    quantize_dynamic(graph, path, nodes_to_quantize=[*wanted, *tables], per_channel=True, weight_type=QuantType.QInt8,
                     reduce_range=reduced)
    made = onnx.load(path)
    _pack4(made, {node: layers[name].weight for name, found in nodes.items() if formats[name] == "int4" for node in found}, group)
    path.write_bytes(made.SerializeToString())
    sizes = {name: _mixing.stored_bytes(tuple(layer.weight.shape), formats[name], group) for name, layer in layers.items()}
    return {"precision": "+".join(sorted({RUNS[kind] for kind in formats.values()})), "matrices": len(layers),
            "bits_per_weight": round(8 * sum(sizes.values()) / sum(layer.weight.numel() for layer in layers.values()), 3)}


def _separate_bias(graph: Any) -> None:
    """Make products of those that add their bias themselves (Gemm, of the pooler), and give every node a name of its own."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    ONNXModel(graph).replace_gemm_with_matmul()
    for at, node in enumerate(graph.graph.node):
        node.name = f"{at}_{node.op_type}"


def _products(graph: Any, layers: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of the nodes that multiply with each layer's matrix: known by its values, since the exporter renames them."""
    import numpy as np
    from onnx import numpy_helper

    constants = {one.name: one for one in graph.graph.initializer if len(one.dims) == 2}
    by_value: dict[tuple[tuple[int, ...], bytes], list[str]] = {}
    for node in graph.graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            matrix_NK = np.ascontiguousarray(numpy_helper.to_array(constants[node.input[1]]).T)
            by_value.setdefault((matrix_NK.shape, matrix_NK.tobytes()), []).append(node.name)
    found = {name: by_value.get((tuple(layer.weight.shape), layer.weight.detach().contiguous().numpy().tobytes()), [])
             for name, layer in layers.items()}
    lacking = [name for name, nodes in found.items() if not nodes]
    if lacking:
        raise StepFailed(f"onnx_runtime: {', '.join(lacking[:3])} is not in the exported graph as a product of its own")
    return found


def _pack4(graph: Any, matrices: Mapping[str, torch.Tensor], group: int) -> None:
    """Put the int4 form in the place of these products, in place; their inputs are [B, T, K]."""
    import numpy as np
    from onnx import helper, numpy_helper

    nodes, constants, summed = [], [], set[str]()
    for node in graph.graph.node:
        if node.name not in matrices:
            nodes.append(node)
            continue
        x, out, weight_NK = node.input[0], node.output[0], matrices[node.name]
        codes, scale, offset = _grids.quantize4(weight_NK.detach(), group)
        outputs, inputs = weight_NK.shape
        swapped = (codes << 4 | codes >> 4).unflatten(1, (-1, group // 2))  # ours begins with the upper half of a byte
        constants += [numpy_helper.from_array(swapped.numpy(), f"{out}_codes"), *_floats(f"{out}_scale", scale, nodes),
                      *_floats(f"{out}_offset", offset.T.contiguous(), nodes)]
        if x not in summed:
            summed.add(x)
            constants += [numpy_helper.from_array(np.array([0, 0, -1, group], dtype=np.int64), f"{x}_grouped_shape"),
                          numpy_helper.from_array(np.array([-1], dtype=np.int64), f"{x}_grouped_axis")]
            nodes += [helper.make_node("Reshape", [x, f"{x}_grouped_shape"], [f"{x}_grouped"]),
                      helper.make_node("ReduceSum", [f"{x}_grouped", f"{x}_grouped_axis"], [f"{x}_sums"], keepdims=0)]
        nodes += [helper.make_node("MatMulNBits", [x, f"{out}_codes", f"{out}_scale"], [f"{out}_scaled"], domain="com.microsoft",
                                   K=inputs, N=outputs, bits=4, block_size=group),
                  helper.make_node("MatMul", [f"{x}_sums", f"{out}_offset"], [f"{out}_shift"]),
                  helper.make_node("Add", [f"{out}_scaled", f"{out}_shift"], [out])]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [one for one in graph.graph.initializer if one.name in read]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend([*kept, *constants])
    if all(one.domain != "com.microsoft" for one in graph.opset_import):
        graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _floats(name: str, values: torch.Tensor, nodes: list[Any]) -> list[Any]:
    """A constant of bf16 that is float32 from when the session starts; adds the node that makes it so."""
    import torch
    from onnx import TensorProto, helper

    nodes.append(helper.make_node("Cast", [f"{name}_bf16"], [name], to=TensorProto.FLOAT))
    raw = values.contiguous().view(torch.int16).numpy().tobytes()
    return [helper.make_tensor(f"{name}_bf16", TensorProto.BFLOAT16, values.shape, raw, raw=True)]
