"""OpenVINO's IR: what is stored, that int8 really runs, and that nothing is reported over the network."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtune.engines import openvino_ir
from trimtune.errors import TrimtuneError
from trimtune.study import data

pytestmark = pytest.mark.slow


def weights_bytes(folder: Path) -> int:
    return (folder / "model.bin").stat().st_size


def test_bf16_stores_half_of_fp32(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        facts = openvino_ir.export(tmp_path / precision, tuned("full"), {"precision": precision}, "plain", [], 64)
        assert facts["precision"] == facts["floats"] == precision
        assert facts["difference"] <= 1e-4
    assert weights_bytes(tmp_path / "bf16") == pytest.approx(weights_bytes(tmp_path / "fp32") / 2, rel=0.02)


def test_int8_layers_run_in_int8(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    openvino = openvino_ir._openvino()
    texts = data.load(helpdesk_rows).train.texts
    openvino_ir.export(tmp_path, tuned("full"), {"precision": "fp32", "calibration_rows": 16}, "int8",
                       texts, 64)
    compiled = openvino.compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = Counter()
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) == "FullyConnected":
            kinds[info["runtimePrecision"].astype(str)] += 1
    assert kinds["i8"] + kinds["u8"] >= 36, kinds


def test_int4_lies_in_the_graph_and_needs_no_rows(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    facts = openvino_ir.export(tmp_path, tuned("full"), {"precision": "fp32"}, "int4", [], 64)
    assert (facts["packed"], facts["precision"], facts["floats"]) == ("packed", "int4", "fp32")
    graph = openvino_ir._openvino().Core().read_model(tmp_path / "model.xml")
    kinds = Counter(op.get_element_type().get_type_name() for op in graph.get_ops() if op.get_type_name() == "Constant")
    assert kinds["i4"] + kinds["u4"] >= 36, kinds


def test_int8_needs_rows(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(TrimtuneError, match="without training rows"):
        openvino_ir.export(tmp_path, tuned("full"), {}, "int8", [], 64)


def test_telemetry_is_off() -> None:
    code = ("from trimtune.engines.openvino_ir import _openvino\n_openvino()\n"
            "import nncf, nncf.telemetry.wrapper as wrapper, sys\n"
            "from openvino.tools.ovc import telemetry, convert_impl\n"
            "assert 'telemetry_stub' in type(telemetry).__module__, type(telemetry)\n"
            "assert wrapper.NNCFTelemetryStub in type(wrapper.telemetry).__mro__, type(wrapper.telemetry)\n"
            "assert not any(name.startswith('openvino_telemetry') and module for name, module in sys.modules.items())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
