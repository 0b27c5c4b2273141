"""The ONNX graph itself: free axes, int8 where it is promised, nothing of the machine that made it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtune.engines import _onnx_graph, onnx_runtime
from trimtune.errors import TrimtuneError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tuned: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for numerics in ("plain", "int8"):
        made[numerics] = tmp_path_factory.mktemp(numerics)
        facts = onnx_runtime.export(made[numerics], tuned("full"), {}, numerics, [], 64)
        assert facts["difference"] <= 1e-4
    return made


def test_batch_and_length_are_named_axes(folders: dict[str, Path]) -> None:
    import onnx

    graph = onnx.load(folders["plain"] / "model.onnx").graph
    assert [value.name for value in graph.input] == ["input_ids", "attention_mask"]
    assert [value.name for value in graph.output] == ["logits"]
    for value in graph.input:
        assert all(axis.dim_param for axis in value.type.tensor_type.shape.dim)


def test_int8_is_in_the_graph_and_runs_there(folders: dict[str, Path]) -> None:
    import numpy as np
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(folders["int8"] / "model.onnx").graph
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["MatMulInteger"] >= 36
    floats = [numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert max(array.size for array in floats) <= 384 * 384, "no big matrix is left in float32"
    scales = [numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name.endswith("_scale")]
    assert any(array.shape == (1536,) and len(np.unique(array)) > 1000 for array in scales), "one scale per output channel"


def test_two_gigabytes_are_refused(tuned: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_onnx_graph, "_LARGEST_BYTES", 1_000_000)
    with pytest.raises(TrimtuneError, match="2 GB"):
        onnx_runtime.export(tmp_path, tuned("full"), {}, "plain", [], 64)
