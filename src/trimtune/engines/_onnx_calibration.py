"""What enters the products of an ONNX graph, seen over training rows in a session that hands these tensors out.

ONNX Runtime's own calibrators keep every tensor of every row until all are read (percentile, entropy); here nothing stays of a
batch but its counts. Rows of one length go together, so nothing is padded: what stands at a padded place reaches no other place,
and would only widen the ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.engines import _clipping, _graph, _onnx_static
from trimtune.engines._ranges import Seen
from trimtune.tasks import text_classification
from trimtune.trim import _calibrated

if TYPE_CHECKING:
    from trimtune.engines._onnx_static import Grids

_AT_ONCE_BYTES = 2**25
"""of tensors that a batch hands out, or one row's: what calibration takes beside the model"""


def calibrated(graph: Any, path: Path, session: Callable[[Path], Any], source: Path, texts: Sequence[str], max_length: int,
               grid: Callable[[Seen, float], tuple[float, int]]) -> tuple[Grids, dict[str, Any]]:
    """The grid of each tensor that enters a product, by the settings that lie in the model folder `source`.

    Args:
        graph: the graph in floats, an onnx.ModelProto; left as it was.
        path: where a graph may be written; it may be overwritten afterwards.
        session: opens an inference session of a file.
        grid: scale and zero of what was seen, clipped at a number.

    Returns:
        the grids, and facts: `calibration`, the `calibration_rows` that were seen, and their `calibration_tokens`.

    Raises:
        TrimtuneError: no settings, no rows, or no products with a constant matrix.
        StepFailed: an activation is no finite number.
    """
    settings = _calibrated.read(source)
    rows = _calibrated.chosen(texts, settings)
    widths = {node.input[0]: matrix.dims[0] for node, matrix in _onnx_static.products(graph)}
    ids = text_classification.load_tokenizer(source)(rows, truncation=True, max_length=max_length)["input_ids"]
    inputs = batches(ids, _AT_ONCE_BYTES // (4 * sum(widths.values())))
    seen = gathered(_handing_out(list(widths), graph, path, session), list(widths), inputs, settings.calibration != "minmax")
    grids = {name: grid(one, _clipping.clip_of(one, settings.calibration, settings.percentile)) for name, one in seen.items()}
    return grids, {"calibration": settings.calibration, "calibration_rows": len(rows), "calibration_tokens": sum(map(len, ids))}


def batches(ids: Sequence[Sequence[int]], places: int) -> Iterator[_graph.Inputs]:
    """Rows of one length together, unpadded: at most `places` tokens in a batch, or one row."""
    import numpy as np

    for length, group in groupby(sorted(filter(len, ids), key=len), len):
        rows, most = list(group), max(1, places // length)
        for at in range(0, len(rows), most):
            ids_BT = np.array(rows[at:at + most], dtype=np.int64)
            yield {"input_ids": ids_BT, "attention_mask": np.ones_like(ids_BT)}


def gathered(session: Any, names: list[str], inputs: Iterable[_graph.Inputs], counted: bool) -> dict[str, Seen]:
    """What the named tensors were over all batches."""
    seen = {name: Seen(counted) for name in names}
    for batch in inputs:
        for name, values in zip(names, session.run(names, batch), strict=True):
            seen[name].add(values)
    return seen


def _handing_out(names: list[str], graph: Any, path: Path, session: Callable[[Path], Any]) -> Any:
    """A session of the graph that gives these tensors beside the logits."""
    import onnx

    known = len(graph.graph.output)
    kind = _onnx_static.products(graph)[0][1].data_type
    graph.graph.output.extend([onnx.helper.make_tensor_value_info(name, kind, None) for name in names])
    path.write_bytes(graph.SerializeToString())
    del graph.graph.output[known:]
    return session(path)
