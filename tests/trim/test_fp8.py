"""fp8: numbers of E4M3 in the graph, scales from training rows, answers near to float; and what a GPU's plan is built from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from tests.engines.small_classifier import small_classifier

from trimtune.engines import _onnx_graph, _onnx_session, _onnx_static, onnx_runtime, tensorrt_plan
from trimtune.engines._ranges import plain
from trimtune.errors import TrimtuneError
from trimtune.study import data
from trimtune.tasks import text_classification as task
from trimtune.trim import _calibrated, fp8
from trimtune.tune.recovery import Setting

E4M3 = onnx.TensorProto.FLOAT8E4M3FN


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp8")
    source = small_classifier(tmp_path_factory.mktemp("small"))
    assert fp8.run(folder, source, fp8.Config(rows=40).model_dump(), Setting(folder)) == {}
    return folder


@pytest.fixture(scope="module")
def texts(helpdesk_rows: Path) -> list[str]:
    return data.load(helpdesk_rows).train.texts


def test_all_values_are_seen_and_nothing_is_clipped(trimmed: Path) -> None:
    settings = _calibrated.read(trimmed)
    assert (settings.calibration, settings.rows) == ("minmax", 40)
    values = np.array([-3, 0.5, 2], np.float32)
    scale, zero = _onnx_static.fp8(fused=True).grid(plain(values), np.inf)
    assert (scale, zero) == (3 / 448, 0)
    assert (values / np.float32(scale)).astype(ml_dtypes.float8_e4m3fn)[0] == -448


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_weights_keep_four_significant_bits(kind: Any) -> None:
    weight_KN = (np.random.default_rng(0).normal(size=(64, 32)) * 0.05).astype(kind)
    codes_KN, scale = _onnx_static.rounded_fp8(weight_KN)
    assert (codes_KN.dtype, scale.dtype, scale.shape) == (ml_dtypes.float8_e4m3fn, kind, ())
    assert np.abs(codes_KN.astype(np.float32)).max() == 448
    back_KN, wanted_KN = codes_KN.astype(np.float32) * scale.astype(np.float32), weight_KN.astype(np.float32)
    # half a unit of the last of three bits, or of the smallest number where the format becomes less exact
    assert (np.abs(back_KN - wanted_KN) <= np.maximum(np.abs(wanted_KN) / 15.9, 2**-10 * scale)).all()
    assert (_onnx_static.rounded_fp8(np.zeros((4, 4), kind))[0] == 0).all()


@pytest.mark.slow
def test_onnx_runtime_stores_a_quarter_and_answers_nearly_alike(trimmed: Path, texts: list[str], helpdesk_rows: Path,
                                                                tmp_path: Path) -> None:
    for name in ("plain", "fp8"):
        (tmp_path / name).mkdir()
        facts = onnx_runtime.export(tmp_path / name, trimmed, {}, name, texts, 64)
    assert (facts["packed"], facts["precision"], facts["calibration_rows"]) == ("stored", "fp32", 40)
    graph = onnx.load(tmp_path / "fp8" / "model.onnx")
    kinds = Counter(tensor.data_type for tensor in graph.graph.initializer if len(tensor.dims) == 2 and min(tensor.dims) > 8)
    assert kinds[E4M3] >= 6
    sizes = {name: (tmp_path / name / "model.onnx").stat().st_size for name in ("plain", "fp8")}
    assert sizes["fp8"] < 0.35 * sizes["plain"]
    inputs = task.encode(task.load_tokenizer(trimmed), data.load(helpdesk_rows).test.texts, 64)
    wanted, got = (onnx_runtime.load(tmp_path / name, 1)(inputs) for name in ("plain", "fp8"))
    assert 1e-4 < np.abs(got - wanted).max()
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.95


@pytest.mark.slow
def test_an_operator_set_without_it_is_refused(trimmed: Path, texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(TrimtuneError, match=r"(?s)graph of opset 18.*19 to 23.*Leave the engine's opset out"):
        onnx_runtime.export(tmp_path, trimmed, {"opset": 18}, "fp8", texts, 64)


@pytest.mark.slow
@pytest.mark.parametrize(("numerics", "code"), [("fp8", E4M3), ("int8_static", onnx.TensorProto.INT8)])
def test_tensorrts_graph_is_symmetric_and_answers_nearly_alike(numerics: str, code: int, trimmed: Path, texts: list[str],
                                                               helpdesk_rows: Path, tmp_path: Path) -> None:
    """All but the build: TensorRT takes scales alone, so every zero is 0. ONNX Runtime reads the same graph on the CPU."""
    model: Any = task.load_model(trimmed, attention="eager")
    proto, told = tensorrt_plan.graph_in_8_bits(model, numerics, 20, trimmed, texts, 64, tmp_path)
    assert not list(tmp_path.iterdir())
    assert told["calibration_rows"] == 40
    onnx.checker.check_model(proto)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    quantized = [node for node in proto.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(quantized) >= 15
    for node in quantized:
        assert constants[node.input[1]].data_type == onnx.TensorProto.FLOAT16
        zero = onnx.numpy_helper.to_array(constants[node.input[2]])
        assert constants[node.input[2]].data_type == code
        assert not zero.astype(np.float32).any()
    inputs = task.encode(task.load_tokenizer(trimmed), data.load(helpdesk_rows).test.texts, 64)
    (tmp_path / "graph.onnx").write_bytes(proto.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # it would take fp8 for integers
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", options, providers=["CPUExecutionProvider"])
    got = session.run(None, dict(inputs))[0]
    (tmp_path / "plain.onnx").write_bytes(_onnx_graph.classifier(model, 20, 64, "test").SerializeToString())
    wanted = _onnx_session.opened(tmp_path / "plain.onnx", 1).run(None, dict(inputs))[0]
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.95


def test_a_gpu_that_lacks_a_format_is_told_which_has_it() -> None:
    assert tensorrt_plan._formats("auto", (7, 5)) == ["fp32", "fp16"]
    assert tensorrt_plan._formats("auto", (8, 0)) == ["fp32", "fp16", "bf16"]
    assert tensorrt_plan._formats("fp8", (8, 9)) == ["fp8"]
    for wanted, here, since in (("fp8", (8, 6), "Ada"), ("bf16", (7, 5), "Ampere")):
        with pytest.raises(TrimtuneError, match=rf"(?s){wanted} was asked for.*capability {here[0]}\.{here[1]}.*{since}"):
            tensorrt_plan._formats(wanted, here)
