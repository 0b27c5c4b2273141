"""Each linear layer of an ONNX graph runs in the format that `mixed` chose for it, and in no other."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engines.small_classifier import small_classifier

from trimtune.engines import _graph, onnx_runtime
from trimtune.errors import StepFailed, TrimtuneError
from trimtune.tasks import text_classification as task
from trimtune.trim import _few_bits, _mixing

pytestmark = pytest.mark.slow
GROUP = 32
Export = Callable[[str, Callable[[int, str], str]], tuple[dict[str, Any], Path]]


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier with every matrix of its blocks on the grid of int4."""
    source, folder = small_classifier(tmp_path_factory.mktemp("source"), layers=2), tmp_path_factory.mktemp("laid")
    model: Any = task.load_base(source)
    for layer in _few_bits.matrices(model, "mixed").values():
        layer.weight.data = _mixing.on_grid(layer.weight.data, "int4", GROUP)
    model.save_pretrained(folder)
    task.load_tokenizer(source).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def export(laid: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The facts and the folder of an export of the same weights, each layer in the format that is said of its place and name."""

    def made(name: str, kind: Callable[[int, str], str]) -> tuple[dict[str, Any], Path]:
        source = tmp_path_factory.mktemp(name) / "source"
        shutil.copytree(laid, source)
        config = json.loads((source / "config.json").read_text())
        layers = _few_bits.linears(task.load_base(laid))
        config[_few_bits.GRID] = {"group": GROUP, "formats": {layer: kind(at, layer) for at, layer in enumerate(layers)}}
        (source / "config.json").write_text(json.dumps(config))
        folder = tmp_path_factory.mktemp(f"{name}-engine")
        return onnx_runtime.export(folder, source, {}, "mixed", [], 32), folder

    return made


def answered(folder: Path, rows: int = 5) -> Any:
    return onnx_runtime.load(folder, 1)(_graph.rows(rows, 17, 30522, padded=True))  # type: ignore[operator]


def constants(folder: Path) -> int:
    import onnx

    return sum(len(one.raw_data) for one in onnx.load(folder / "model.onnx").graph.initializer)


def low(kind: str) -> Callable[[int, str], str]:
    return lambda _, name: "float" if "pooler" in name else kind


def test_int4_gives_what_the_same_weights_give_in_float32(export: Export) -> None:
    (facts, packed), (told, plain) = export("int4", low("int4")), export("float", low("float"))
    np.testing.assert_allclose(answered(packed), answered(plain), atol=2e-4)
    assert (facts["precision"], told["precision"]) == ("fp32+int4", "fp32")
    assert (facts["packed"], facts["numerics"], facts["matrices"]) == ("packed", "mixed", 13)
    inside, pooler = 2 * (4 * 64 * 64 + 2 * 64 * 128), 64 * 64
    assert facts["bits_per_weight"] == pytest.approx((inside * 5 + pooler * 32) / (inside + pooler), abs=0.001)
    assert constants(plain) - constants(packed) == pytest.approx(inside * (32 - 5) / 8, abs=1000)


def test_every_layer_is_in_its_own_format(export: Export) -> None:
    import onnx

    kinds = ("int4", "int8", "float")
    facts, folder = export("each", lambda at, name: "int8" if "pooler" in name else kinds[at % 3])
    graph = onnx.load(folder / "model.onnx").graph
    count = Counter(node.op_type for node in graph.node)
    assert facts["precision"] == "fp32+int4+int8"
    assert (count["MatMulNBits"], count["MatMulInteger"]) == (4, 4 + 1), "12 in the blocks, and the pooler"
    biggest = {one.name: one.data_type for one in graph.initializer if np.prod(one.dims) >= 64 * 64}
    assert list(biggest.values()).count(onnx.TensorProto.FLOAT) == 4, "those that stay, and no second copy of the others"
    _, plain = export("plain", low("float"))
    apart = np.abs(answered(folder) - answered(plain))
    assert 1e-4 < apart.max() < 0.5 * answered(plain).std(), "int8 rounds its inputs"


def test_what_it_has_no_product_for_is_refused(export: Export, laid: Path, tmp_path: Path) -> None:
    with pytest.raises(TrimtuneError, match=r"onnx_runtime: mixed was asked for with layers in binary, ternary\."):
        export("few", lambda at, _: ("ternary", "binary", "int8")[at % 3])
    with pytest.raises(StepFailed, match="onnx_runtime: config.json does not name the format of each linear layer"):
        onnx_runtime.export(tmp_path, laid, {}, "mixed", [], 32)
