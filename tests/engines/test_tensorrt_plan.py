"""TensorRT up to the call that builds: what lacks is named, each format's graph is right, plans of other GPUs are refused."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engines.small_classifier import small_classifier

from trimtune.engines import _cuda_driver, _graph, _onnx_graph, _tensorrt, tensorrt_plan
from trimtune.engines._export import why_not
from trimtune.errors import TrimtuneError
from trimtune.records import Candidate
from trimtune.study.uses import defaults
from trimtune.tasks import text_classification as task

has_package = importlib.util.find_spec("tensorrt") is not None
no_package = pytest.mark.skipif(has_package, reason="TensorRT is installed")
no_gpu = pytest.mark.skipif(_cuda_driver.lacking() is None, reason="there is a CUDA device")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_classifier(tmp_path_factory.mktemp("small"))


@no_package
def test_a_missing_package_is_named_with_the_extra_that_brings_it() -> None:
    assert tensorrt_plan.available() == "tensorrt not installed: pip install 'trimtune[tensorrt]'"


@no_package
@no_gpu
def test_a_missing_gpu_is_named_once_the_package_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    reason = str(tensorrt_plan.available())
    assert "CUDA" in reason
    assert "NVIDIA" in reason
    assert "pip install can't bring one" in reason


@no_gpu
def test_a_plan_of_a_study_says_why_and_names_the_engine() -> None:
    engine = defaults("engine", ["tensorrt_plan"])[0]
    reason = why_not(Candidate(method=defaults("method", ["head"])[0], trims=(), engine=engine), "text_classification")
    assert str(reason).startswith("tensorrt_plan is not available here: ")
    assert "install" in str(reason)


@no_gpu
def test_a_plan_can_not_be_loaded_here_and_says_where_it_can(tmp_path: Path) -> None:
    _graph.note(tmp_path, engine="tensorrt_plan", gpu="NVIDIA L4", tensorrt="10.13.0.35", buckets=[])
    with pytest.raises(TrimtuneError, match=r"(?s)not available here.*built for NVIDIA L4 with TensorRT 10.13.0.35"):
        tensorrt_plan.load(tmp_path, 2)


@pytest.mark.parametrize("other", [{"gpu": "NVIDIA A10"}, {"tensorrt": "11.4.0.106"}])
def test_a_plan_of_another_gpu_or_version_is_refused(other: dict[str, str]) -> None:
    built = {"gpu": "NVIDIA L4", "tensorrt": "10.13.0.35"}
    tensorrt_plan.refuse_foreign({**built, "precision": "fp16"}, built)
    with pytest.raises(TrimtuneError) as told:
        tensorrt_plan.refuse_foreign({**built, "precision": "fp16"}, {**built, **other})
    for word in ("NVIDIA L4", "10.13.0.35", next(iter(other.values())), "Run the study here again"):
        assert word in str(told.value)


def test_a_timing_cache_must_be_a_file(small: Path, tmp_path: Path) -> None:
    with pytest.raises(TrimtuneError, match=r"(?s)timing_cache: .*nowhere is no file.*Leave timing_cache out"):
        tensorrt_plan.export(tmp_path, small, {"timing_cache": str(tmp_path / "nowhere")}, "plain", [], 64)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_graph_holds_the_format_that_is_to_run(precision: str, small: Path) -> None:
    """TensorRT computes in what the graph says. ONNX Runtime reads the same graph on the CPU, but for bf16."""
    import onnx
    from onnx import TensorProto

    model: Any = task.load_model(small, attention="eager")
    proto = tensorrt_plan.graph_of(model, precision, 20, 64)
    onnx.checker.check_model(proto)
    kinds = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
    matrices = [tensor for tensor in proto.graph.initializer if len(tensor.dims) == 2 and min(tensor.dims) > 8]
    assert len(matrices) >= 9
    assert {tensor.data_type for tensor in matrices} == {kinds[precision]}
    assert [value.name for value in proto.graph.input] == list(_onnx_graph.INPUTS)
    for value in proto.graph.input:
        assert value.type.tensor_type.elem_type == TensorProto.INT64
        assert all(axis.dim_param for axis in value.type.tensor_type.shape.dim)
    assert [(value.name, value.type.tensor_type.elem_type) for value in proto.graph.output] == [("logits", TensorProto.FLOAT)]
    assert next(model.parameters()).dtype.itemsize == 4, "the model itself stays as it was"
    if precision != "bf16":
        run = _by_onnx_runtime(proto.SerializeToString())
        difference = _graph.check(run, model, 64, tensorrt_plan.TOLERANCE[precision], "tensorrt_plan")
        assert difference > 1e-4 or precision == "fp32", "half the digits must show"


@pytest.mark.skipif(not has_package, reason="TensorRT is not installed")
def test_what_is_asked_of_the_package_is_there() -> None:
    import tensorrt

    for node in ast.walk(ast.parse(Path(_tensorrt.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("tensorrt."):
            found: Any = tensorrt
            for name in ast.unparse(node).split(".")[1:]:
                found = getattr(found, name)


def _by_onnx_runtime(graph: bytes) -> _graph.Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, np.ndarray]) -> Any:
        return session.run(None, inputs)[0]

    return run
