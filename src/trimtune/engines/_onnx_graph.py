"""The ONNX graph that engines run or build from: traced from the PyTorch module, with batch and length left open.

    classifiers: logits [B, C] float32 = graph(input_ids [B, T] int64, attention_mask [B, T] int64)
"""

from __future__ import annotations

from typing import Any

from trimtune.engines import _graph
from trimtune.errors import StepFailed, TrimtuneError

INPUTS = ("input_ids", "attention_mask")
LOGITS = "logits"
_LARGEST_BYTES = 2**31


def classifier(model: Any, opset: int, max_length: int, engine: str) -> Any:
    """The graph of a classifier as an onnx.ModelProto: its weights in the model's own format, its logits in float32.

    Raises:
        TrimtuneError: 2 GB of weights or more.
        StepFailed: the exporter gave nothing.
    """
    import torch

    refuse_large(model, engine)
    example = {name: torch.from_numpy(values)
               for name, values in _graph.rows(3, min(11, max_length), model.config.vocab_size, padded=True).items()}
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    return traced(_graph.logits_only(model), example, dict.fromkeys(INPUTS, free), opset, engine, [LOGITS])


def traced(module: Any, example: dict[str, Any], free: dict[str, Any], opset: int, engine: str,
           outputs: list[str] | None = None) -> Any:
    """A module as an onnx.ModelProto.

    Args:
        example: what the module is called with once, by name.
        free: which dimensions of it stay open.
        outputs: their names; None leaves them to the exporter.
    """
    import torch

    with torch.no_grad():
        program = torch.onnx.export(module, kwargs=example, dynamo=True, opset_version=opset, verbose=False, dynamic_shapes=free,
                                    output_names=outputs)
    if program is None:
        raise StepFailed(f"{engine}: torch.onnx.export gave no graph")
    graph = program.model_proto
    del graph.graph.value_info[:]  # the exporter's optimizer leaves shapes of transposed weights behind, which quantizing rejects
    return graph


def refuse_large(module: Any, engine: str) -> None:
    """Raises TrimtuneError for weights of 2 GB and more, which would end in the file format's own words after minutes."""
    if sum(parameter.nbytes for parameter in module.parameters()) >= _LARGEST_BYTES:
        raise TrimtuneError(f"{engine}: the model has 2 GB of weights or more.", "One ONNX file holds less than 2 GB.",
                            "Use torch_eager or openvino_ir for it.")
