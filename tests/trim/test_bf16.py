"""bf16 as a trim: the format is forced, the size is a half, and what ships is judged as bf16 is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trimtune.engines import onnx_runtime, openvino_ir, torch_eager
from trimtune.engines._export import why_not
from trimtune.errors import TrimtuneError
from trimtune.records import Candidate, Use
from trimtune.ship import lm_parity, parity
from trimtune.tasks import text_classification as task
from trimtune.trim import bf16
from trimtune.tune.recovery import Setting


def test_it_shares_the_sources_bytes(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    bf16.run(tmp_path, tuned("lora"), {}, Setting(helpdesk_rows))
    for name in (Path("model.safetensors"), Path("adapter/adapter_model.safetensors")):
        assert (tmp_path / name).stat().st_ino == (tuned("lora") / name).stat().st_ino


@pytest.mark.slow
def test_torch_stores_and_runs_it_whatever_the_clock_says(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    facts = torch_eager.export(tmp_path, tuned("lora"), {"precision": "fp32"}, "bf16", [], 32)
    assert (facts["precision"], facts["packed"], facts["milliseconds"]) == ("bf16", "packed", {})
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    plain = (tuned("full") / "model.safetensors").stat().st_size
    assert (tmp_path / "model.safetensors").stat().st_size == pytest.approx(plain / 2, rel=0.01)
    inputs = task.encode(task.load_tokenizer(tmp_path), ["I was charged twice", "hi"], 32)
    with torch.inference_mode():
        wanted = task.load_model(tuned("lora"))(**{name: torch.from_numpy(value) for name, value in inputs.items()}).logits
    difference = (torch.from_numpy(torch_eager.load(tmp_path, 1)(inputs)) - wanted).abs().max()
    assert 0 < difference <= torch_eager.TOLERANCE["bf16"]


@pytest.mark.slow
def test_openvino_stores_half_and_runs_it(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    if "BF16" not in openvino_ir._openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("OpenVINO has no bf16 for this CPU")
    facts = openvino_ir.export(tmp_path, tuned("full"), {"precision": "fp32"}, "bf16", [], 32)
    assert (facts["precision"], facts["floats"], facts["packed"], facts["milliseconds"]) == ("bf16", "bf16", "packed", {})
    plain = (tuned("full") / "model.safetensors").stat().st_size
    assert (tmp_path / "model.bin").stat().st_size == pytest.approx(plain / 2, rel=0.02)
    compiled = openvino_ir._openvino().compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    kinds = [node.get_rt_info()["runtimePrecision"].astype(str) for node in compiled.get_runtime_model().get_ops()
             if node.get_rt_info()["layerType"].astype(str) == "FullyConnected"]
    assert kinds.count("bf16") >= 36


def test_a_cpu_where_it_would_run_in_float32_is_refused() -> None:
    openvino_ir.refuse_bf16(["FP32", "BF16", "INT8"])
    with pytest.raises(TrimtuneError, match="OpenVINO has FP32, INT8"):
        openvino_ir.refuse_bf16(["FP32", "INT8"])


def test_an_engine_without_it_says_so() -> None:
    if onnx_runtime.available():
        pytest.skip(onnx_runtime.available() or "")
    asked = Candidate(method=Use(name="full"), trims=(Use(name="bf16"),), engine=Use(name="onnx_runtime"))
    assert "onnx_runtime has no bf16 for text_classification" in (why_not(asked, "text_classification") or "")


def test_what_ships_is_judged_by_the_format_that_runs() -> None:
    assert parity.tolerance("torch_eager", "bf16", "bf16") == parity.tolerance("torch_eager", "plain", "bf16") == (0.25, 0.99)
    assert parity.tolerance("torch_eager", "sparse", "fp32") == parity.tolerance("torch_eager", "plain", "fp32") == (1e-3, 0.99)
    assert parity.tolerance("openvino_ir", "int8", "int8") == (None, 0.9)
    assert lm_parity.allowed_of("torch_eager", "bf16", "bf16") == lm_parity.ROUNDED
