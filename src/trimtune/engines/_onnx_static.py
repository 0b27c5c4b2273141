"""Products of a classifier's ONNX graph in 8 bits, integers or fp8, by ranges that were seen before (static).

    x [B, T, K] → QuantizeLinear(t, z) → DequantizeLinear ┐
    W [K, N] in 8 bits → DequantizeLinear(s [N] or s)     ┴ MatMul → [B, T, N], as the graph's own numbers

These are operators of the ONNX standard, so the file stays portable; ONNX Runtime makes one product of integers of each such
group of int8 when a session starts, TensorRT one of int8 or fp8 when it builds a plan. Only products with a constant matrix are
quantized: biases, GELU, attention's own products, softmax and layer norms are those of the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from trimtune.engines._ranges import Seen
from trimtune.errors import TrimtuneError

if TYPE_CHECKING:
    import numpy as np

    Nodes = Callable[..., list[Any]]
    Grids = Mapping[str, tuple[float, int]]
    """of each tensor that enters a product: scale t and zero z, x ≈ t (a − z)"""


_FIRST_FP8 = 19
"""the first ONNX operator set whose QuantizeLinear knows fp8"""
LARGEST_FP8 = 448
"""of E4M3 without infinities (arXiv 2209.05433, table 1)"""


class Form(NamedTuple):
    """How 8 bits hold the factors of a product."""

    codes: Any
    """the numpy type of a, the codes of what enters"""
    grid: Callable[[Seen, float], tuple[float, int]]
    """the scale and the zero of what was seen, clipped at a number"""
    weights: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    """a matrix [K, N] → its codes [K, N], and its scales in the matrix's own type, [N] or one for all"""
    fused: bool = True
    """whether what runs it makes one product of each group; else the group is written as casts and scaling"""


def unsigned(most: int) -> Form:
    """a in 0 … 255, weights int8 within ±`most` by output channel: 127, or 63 where sums of 8-bit products would saturate."""
    import numpy as np

    return Form(np.uint8, Seen.affine, partial(rounded, most=most))


def signed() -> Form:
    """Both in int8 around zero, weights by output channel: all that TensorRT takes."""
    import numpy as np

    return Form(np.int8, partial(Seen.symmetric, most=127), partial(rounded, most=127))


def fp8(fused: bool) -> Form:
    """Both in fp8, E4M3 without infinities, one scale for a whole matrix.

    ONNX Runtime takes such a group for one of integers and refuses it, so it needs them unfused.
    """
    import ml_dtypes

    return Form(ml_dtypes.float8_e4m3fn, partial(Seen.symmetric, most=LARGEST_FP8), rounded_fp8, fused)


def products(graph: Any) -> list[tuple[Any, Any]]:
    """The MatMul nodes whose second factor is a constant matrix of floats that nothing else reads, each with that matrix.

    Raises:
        TrimtuneError: there are none.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in graph.graph.initializer
                 if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16) and len(tensor.dims) == 2}
    found = [node for node in graph.graph.node if node.op_type == "MatMul" and node.input[1] in constants]
    uses, own = Counter(name for node in graph.graph.node for name in node.input), Counter(node.input[1] for node in found)
    kept = [(node, constants[node.input[1]]) for node in found if uses[node.input[1]] == own[node.input[1]]]
    if not kept:
        raise TrimtuneError("int8_static or fp8: the graph has no product of a hidden state and a constant matrix.",
                            "They quantize torch.nn.Linear (BERT, DistilBERT, RoBERTa …), not GPT-2's transposed layers.",
                            "Leave them out of `trim`, or use a model such as `minilm`.")
    return kept


def quantize(graph: Any, grids: Grids, form: Form) -> None:
    """Quantize the products of a graph, an onnx.ModelProto, in place: those that the grids tell of.

    Raises:
        TrimtuneError: the graph's operator set has no such format.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    opset = max(one.version for one in graph.opset_import if not one.domain)
    if form.weights is rounded_fp8 and opset < _FIRST_FP8:
        raise TrimtuneError(f"fp8 was asked for in a graph of opset {opset}.", f"Allowed: {_FIRST_FP8} to 23.",
                            "Leave the engine's opset out of the study, or the trim.")
    matrices = {node.output[0]: matrix for node, matrix in products(graph) if node.input[0] in grids}
    floats = {numpy_helper.to_array(matrix).dtype for matrix in matrices.values()}  # one type, that of the graph
    nodes, added, done = [], [], set[str]()
    kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in (*floats, form.codes)]
    enter, leave = (_by_operator if form.fused else _by_casts)(*kinds)
    for node in graph.graph.node:
        if (matrix := matrices.get(node.output[0])) is not None:
            (x, weight), out = node.input, node.output[0]
            if x not in done:
                scale, zero = grids[x]
                added += _grid(x, np.array(scale, *floats), np.array(zero).astype(form.codes))
                nodes += enter(x, f"{x}_codes")
            if weight not in done:
                codes_KN, scales = form.weights(numpy_helper.to_array(matrix))
                matrix.CopyFrom(numpy_helper.from_array(codes_KN, weight))
                added += _grid(weight, scales, np.zeros_like(scales, codes_KN.dtype))
            done |= {x, weight}
            nodes += [*leave(f"{x}_codes", x, f"{out}_x"), *leave(weight, weight, f"{out}_weight", axis=1)]
            node.input[0], node.input[1] = f"{out}_x", f"{out}_weight"
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    graph.graph.initializer.extend(one for one in added if one.name in used)


def _by_operator(floats: int, codes: int) -> tuple[Nodes, Nodes]:
    """The operators that put a tensor on its grid, and read it off, by the standard's own names for that.

    Args:
        floats, codes: ONNX's numbers of the types off the grid and on it.
    """
    from onnx import helper

    def enter(x: str, out: str) -> list[Any]:
        return [helper.make_node("QuantizeLinear", [x, f"{x}_scale", f"{x}_zero"], [out])]

    def leave(coded: str, grid: str, out: str, **axis: int) -> list[Any]:
        return [helper.make_node("DequantizeLinear", [coded, f"{grid}_scale", f"{grid}_zero"], [out], **axis)]

    return enter, leave


def _by_casts(floats: int, codes: int) -> tuple[Nodes, Nodes]:
    """The same by plain arithmetic, of a grid without zero points."""
    from onnx import helper

    def enter(x: str, out: str) -> list[Any]:
        return [helper.make_node("Div", [x, f"{x}_scale"], [f"{out}_wide"]),
                helper.make_node("Cast", [f"{out}_wide"], [out], to=codes)]

    def leave(coded: str, grid: str, out: str, **axis: int) -> list[Any]:
        return [helper.make_node("Cast", [coded], [f"{out}_wide"], to=floats),
                helper.make_node("Mul", [f"{out}_wide", f"{grid}_scale"], [out])]

    return enter, leave


def rounded(weight_KN: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of floats as int8 [K, N] within ±`most`, and its scales [N], one per output channel."""
    import numpy as np

    scale_N = np.abs(weight_KN).max(0) / weight_KN.dtype.type(most)
    scale_N[scale_N == 0] = 1
    return np.rint(weight_KN / scale_N).clip(-most, most).astype(np.int8), scale_N


def rounded_fp8(weight_KN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of floats as fp8 [K, N], and its one scale []: the largest weight is the largest number of the format."""
    import ml_dtypes
    import numpy as np

    scale = np.asarray(np.abs(weight_KN).max() / weight_KN.dtype.type(LARGEST_FP8)) or np.ones((), weight_KN.dtype)
    return np.clip(weight_KN / scale, -LARGEST_FP8, LARGEST_FP8).astype(ml_dtypes.float8_e4m3fn), scale


def _grid(name: str, scale: np.ndarray, zero: np.ndarray) -> list[Any]:
    from onnx import numpy_helper

    return [numpy_helper.from_array(scale, f"{name}_scale"), numpy_helper.from_array(zero, f"{name}_zero")]
