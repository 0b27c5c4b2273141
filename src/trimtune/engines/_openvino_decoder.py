"""Language models in OpenVINO: one graph that keeps its cache of keys and values as state, in floats or with packed weights.

The states are set where a batch begins, which is how virtual tokens come in, and stay in the plugin between steps: a step moves
one token in and one row of logits out. The cache is held in the graph's own precision; OpenVINO would round it to 8 bits.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.engines import _cached_graph, _decoding, _graph
from trimtune.engines._torch_decoder import positions_of
from trimtune.tasks import causal_lm
from trimtune.trim import _groups
from trimtune.trim._model_folder import base_of, write_beside

if TYPE_CHECKING:
    import numpy as np

GRAPH = "model.xml"
_HINT = {"fp32": "f32", "bf16": "bf16"}
_GROUP = 64
"""weights that share an int4 scale"""


class StatefulGraph:
    """A `_cached_graph.Graph`, compiled for the CPU."""

    def __init__(self, openvino: Any, graph: Any, precision: str, threads: int) -> None:
        settings = {"INFERENCE_PRECISION_HINT": _HINT[precision], "KV_CACHE_PRECISION": _HINT[precision],
                    "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        self._tensor = openvino.Tensor
        self._request = openvino.compile_model(graph, "CPU", settings).create_infer_request()

    def start(self, past: list[np.ndarray]) -> None:
        for state in self._request.query_state():
            state.state = self._tensor(past[_layer_of(state.name)])

    def run(self, *given: np.ndarray) -> np.ndarray:
        logits_BKV: np.ndarray = self._request.infer(given, share_inputs=True)[0]
        return logits_BKV

    def cache_bytes(self) -> int:
        return sum(state.state.byte_size for state in self._request.query_state())


def export(openvino: Any, folder: Path, source: Path, numerics: str, precision: str, max_length: int,
           tolerance: float) -> dict[str, Any]:
    """Write model.xml, model.bin, what stands before each row, config and tokenizer; facts as those of the other engines.

    Raises:
        StepFailed: the float32 graph answers differently than PyTorch.
    """
    from trimtune.process import threads

    module: Any = causal_lm.load_model(source)
    past, positions = _cached_graph.past_of(module), positions_of(module)
    vocabulary = base_of(module).config.vocab_size
    graph = _traced(openvino, module, past)

    def decoder(precision: str) -> _cached_graph.GraphDecoder:
        return _cached_graph.GraphDecoder(StatefulGraph(openvino, graph, precision, threads()), past, positions)

    difference = _cached_graph.checked(decoder("fp32"), module, tolerance, "openvino_ir")
    weights_alone = numerics in ("int8", "int4")
    if weights_alone:
        graph = packed(graph, numerics, source)
    milliseconds: dict[str, list[float]] = {}
    if precision == "auto":
        precision, milliseconds = _decoding.fastest({name: decoder(name) for name in _HINT}, vocabulary, max_length)
    if weights_alone or precision != "fp32":
        difference = _cached_graph.checked(decoder(precision), module, sys.float_info.max, "openvino_ir")
    openvino.save_model(graph, folder / GRAPH, compress_to_fp16=precision == "bf16" or numerics == "fp16")
    _cached_graph.write_past(folder, past)
    base_of(module).config.save_pretrained(folder)
    write_beside(base_of(module), source, folder, causal_lm)
    return {"precision": numerics if weights_alone else precision, "floats": precision, "positions": positions,
            "difference": difference, "milliseconds": milliseconds}


def load(openvino: Any, folder: Path, threads: int) -> _cached_graph.GraphDecoder:
    notes = _graph.noted(folder)
    graph = StatefulGraph(openvino, folder / GRAPH, notes["floats"], threads)
    return _cached_graph.GraphDecoder(graph, _cached_graph.read_past(folder), notes["positions"])


def _traced(openvino: Any, module: Any, past: list[np.ndarray]) -> Any:
    """The float32 graph as an openvino.Model with a state for the keys and one for the values of each layer."""
    import torch
    from openvino._offline_transformations import apply_make_stateful_transformation

    graph, example = _cached_graph.traceable(module, "openvino_ir"), _cached_graph.example(past)

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = graph

        def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, places: Any, *past: Any) -> Any:
            return self.inner(input_ids, attention_mask, position_ids, places, list(past))

    free = [openvino.PartialShape(shape) for shape in
            [[-1, -1]] * 3 + [[-1]] + [[-1, tensor.shape[1], -1, tensor.shape[3]] for tensor in past]]
    inputs = [*example.values()][:-1] + example["past"]
    with torch.no_grad():
        model = openvino.convert_model(Flat().eval(), example_input=tuple(inputs), input=free)
    for index in range(len(past)):
        model.inputs[4 + index].get_tensor().set_names({f"past.{index}"})
        model.outputs[1 + index].get_tensor().set_names({f"present.{index}"})
    apply_make_stateful_transformation(model, {f"past.{index}": f"present.{index}" for index in range(len(past))})
    return model


def _layer_of(state: str) -> int:
    """The place of a state among `past`; OpenVINO names it by both of its ends."""
    return int(state.removeprefix("past.").split("present")[0])


def packed(graph: Any, numerics: str, source: Path) -> Any:
    """Weights as int8 per output channel, or as int4 per group (`source` says of how many), with int8 for the rest."""
    import nncf

    if numerics == "int8":
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)
    from nncf.quantization.advanced_parameters import AdvancedCompressionParameters, GroupSizeFallbackMode

    # where rows are no multiple of the group, the largest power of two that divides them is taken, at least 32; else int8
    advanced = AdvancedCompressionParameters(group_size_fallback_mode=GroupSizeFallbackMode.ADJUST)
    return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=_groups.asked(source, _GROUP),
                                 ratio=1.0, advanced_parameters=advanced)
