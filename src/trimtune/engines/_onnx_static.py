"""Static int8 of a classifier's ONNX graph: its products become products of integers.

    x [B, T, K] → QuantizeLinear(t, z) → DequantizeLinear ┐
    W [K, N] int8 → DequantizeLinear(s [N])               ┴ MatMul → float32 [B, T, N]

These are operators of the ONNX standard, so the file stays portable; when a session starts, ONNX Runtime makes one product of
integers of each such group. Only products with a constant matrix are quantized, and their results leave in float32: biases,
GELU, attention's own products, softmax and layer norms are those of the float32 graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError

if TYPE_CHECKING:
    import numpy as np

    Grids = Mapping[str, tuple[float, int]]
    """of each tensor that enters a product: scale t and zero z, x ≈ t (a − z), a in 0 … 255"""


def products(graph: Any) -> list[tuple[Any, Any]]:
    """The MatMul nodes whose second factor is a constant float32 matrix that nothing else reads, each with that matrix.

    Raises:
        TrimtuneError: there are none.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in graph.graph.initializer
                 if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2}
    found = [node for node in graph.graph.node if node.op_type == "MatMul" and node.input[1] in constants]
    uses, own = Counter(name for node in graph.graph.node for name in node.input), Counter(node.input[1] for node in found)
    kept = [(node, constants[node.input[1]]) for node in found if uses[node.input[1]] == own[node.input[1]]]
    if not kept:
        raise TrimtuneError("onnx_runtime: int8_static found no product of a hidden state and a constant matrix.",
                            "It quantizes torch.nn.Linear (BERT, DistilBERT, RoBERTa, ELECTRA …), not GPT-2's transposed layers.",
                            "Leave int8_static out of `trim`, or use a model such as `minilm`.")
    return kept


def quantize(graph: Any, grids: Grids, most: int) -> None:
    """Quantize the products of a graph, an onnx.ModelProto, in place: those that the grids tell of.

    Args:
        most: the largest weight: 127, or 63 where sums of 8-bit products would saturate.
    """
    from onnx import helper, numpy_helper

    matrices = {node.output[0]: matrix for node, matrix in products(graph) if node.input[0] in grids}
    nodes, added, done = [], [], set[str]()
    for node in graph.graph.node:
        if (matrix := matrices.get(node.output[0])) is not None:
            (x, weight), out = node.input, node.output[0]
            if x not in done:
                added += _grid(x, *grids[x])
                nodes.append(helper.make_node("QuantizeLinear", [x, f"{x}_scale", f"{x}_zero"], [f"{x}_int8"]))
            if weight not in done:
                codes_KN, scale_N = rounded(numpy_helper.to_array(matrix), most)
                matrix.CopyFrom(numpy_helper.from_array(codes_KN, weight))
                added += [numpy_helper.from_array(scale_N, f"{weight}_scale"),
                          numpy_helper.from_array(codes_KN[0] * 0, f"{weight}_zero")]
            done |= {x, weight}
            nodes.append(helper.make_node("DequantizeLinear", [f"{x}_int8", f"{x}_scale", f"{x}_zero"], [f"{out}_x"]))
            nodes.append(helper.make_node("DequantizeLinear", [weight, f"{weight}_scale", f"{weight}_zero"], [f"{out}_weight"],
                                          axis=1))
            node.input[0], node.input[1] = f"{out}_x", f"{out}_weight"
        nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    graph.graph.initializer.extend(added)


def rounded(weight_KN: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """A float32 matrix as int8 [K, N] within ±`most`, and its float32 scales [N], one per output channel."""
    import numpy as np

    scale_N = np.abs(weight_KN).max(0) / np.float32(most)
    scale_N[scale_N == 0] = 1
    return np.rint(weight_KN / scale_N).astype(np.int8), scale_N


def _grid(name: str, scale: float, zero: int) -> list[Any]:
    import numpy as np
    from onnx import numpy_helper

    return [numpy_helper.from_array(np.array(scale, dtype=np.float32), f"{name}_scale"),
            numpy_helper.from_array(np.array(zero, dtype=np.uint8), f"{name}_zero")]
