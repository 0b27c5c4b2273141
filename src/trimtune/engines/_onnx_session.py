"""ONNX Runtime's session of a file on this CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def opened(path: Path, threads: int) -> Any:
    """An inference session: operators fused, threads that spin within a call and stop with it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
