"""Language models in ONNX Runtime: one graph that takes the cache of keys and values in and hands it out, longer by the tokens.

The cache stays in ONNX Runtime's own tensors between steps. int8 and int4 pack the weights of the linear layers, the output
layer among them, in blocks of 32 that share a scale (MatMulNBits); products are summed in 8-bit integers, the inputs of each row
being rounded by blocks as well, so no row depends on its neighbors. Embeddings, norms and the cache stay in float32.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.engines import _cached_graph, _graph, _onnx_graph
from trimtune.engines._torch_decoder import positions_of
from trimtune.tasks import causal_lm
from trimtune.trim import _groups
from trimtune.trim._model_folder import base_of, straighten, write_beside

if TYPE_CHECKING:
    import numpy as np

GRAPH = "model.onnx"
_BITS = {"int8": 8, "int4": 4}
_BLOCK = 32
_INT8_SUMS = 4
"""`accuracy_level` of MatMulNBits: inputs are rounded to int8, too"""


class CachedSession:
    """A `_cached_graph.Graph` on an inference session."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._inputs = [one.name for one in session.get_inputs()]
        self._outputs = [one.name for one in session.get_outputs()]
        self._cache: list[Any] = []

    def start(self, past: list[np.ndarray]) -> None:
        self._cache = [self._value(tensor) for tensor in past]

    def run(self, *given: np.ndarray) -> np.ndarray:
        fed = dict(zip(self._inputs, [*map(self._value, given), *self._cache], strict=True))
        logits, *self._cache = self._session.run_with_ort_values(self._outputs, fed)
        logits_BKV: np.ndarray = logits.numpy()
        return logits_BKV

    def cache_bytes(self) -> int:
        return sum(4 * math.prod(tensor.shape()) for tensor in self._cache)

    @staticmethod
    def _value(array: np.ndarray) -> Any:
        import numpy as np
        from onnxruntime import OrtValue

        return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def export(folder: Path, source: Path, numerics: str, opset: int, tolerance: float, session: Any) -> dict[str, Any]:
    """Write model.onnx, what stands before each row, config and tokenizer; facts as those of the other engines.

    Args:
        session: opens an inference session of a file.

    Raises:
        TrimtuneError: 2 GB of weights or more.
        StepFailed: the float32 graph answers differently than PyTorch.
    """
    module: Any = causal_lm.load_model(source, attention="eager")
    _onnx_graph.refuse_large(module, "onnx_runtime")
    past, positions = _cached_graph.past_of(module), positions_of(module)
    graph, path = _traced(module, past, opset), folder / GRAPH

    def checked(tolerance: float) -> float:
        decoder = _cached_graph.GraphDecoder(CachedSession(session(path)), past, positions)
        return _cached_graph.checked(decoder, module, tolerance, "onnx_runtime")

    path.write_bytes(graph.SerializeToString())
    difference = checked(tolerance)
    if numerics != "plain":
        path.write_bytes(packed(graph, numerics, source).SerializeToString())
        difference = checked(sys.float_info.max)
    _cached_graph.write_past(folder, past)
    base_of(module).config.save_pretrained(folder)
    write_beside(base_of(module), source, folder, causal_lm)
    return {"precision": "fp32" if numerics == "plain" else numerics, "positions": positions, "difference": difference}


def load(folder: Path, session: Any) -> _cached_graph.GraphDecoder:
    """The decoder of a runnable folder; `session` opens an inference session of a file."""
    notes = _graph.noted(folder)
    return _cached_graph.GraphDecoder(CachedSession(session(folder / GRAPH)), _cached_graph.read_past(folder), notes["positions"])


def _traced(module: Any, past: list[np.ndarray], opset: int) -> Any:
    """The float32 graph as an onnx.ModelProto."""
    import torch

    straighten(base_of(module))  # packing knows plain products only, and GPT-2's have a bias inside
    free = torch.export.Dim.DYNAMIC
    shapes = {**{name: {0: free, 1: free} for name in ("input_ids", "attention_mask", "position_ids")}, "places": {0: free},
              "past": [{0: free, 2: free}] * len(past)}
    graph = _onnx_graph.traced(_cached_graph.traceable(module, "onnx_runtime"), _cached_graph.example(past), shapes, opset,
                               "onnx_runtime")
    for node in graph.graph.node:
        del node.metadata_props[:]  # where in Python each came from: of a small model half of the file
    return graph


def packed(graph: Any, numerics: str, source: Path) -> Any:
    """The graph with the constant matrices of its products packed as `int8`, or as `int4` in groups as `source` asks for, as an
    onnx.ModelProto."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    block = _groups.asked(source, _BLOCK) if numerics == "int4" else _BLOCK
    packer = MatMulNBitsQuantizer(graph, bits=_BITS[numerics], block_size=block, is_symmetric=True, accuracy_level=_INT8_SUMS)
    packer.process()
    return packer.model.model
