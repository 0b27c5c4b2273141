"""Ways to run a tuned classifier that somebody would set up by hand: each opened in a process of its own by bench/infer.py.

Every `open_*` gives texts → logits [B, C], tokenizing included, of the same tuned model with its adapter folded in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from trimtune.engines import _graph, _onnx_graph, _threads, openvino_ir
from trimtune.tasks import text_classification as task

Answer = Callable[[Sequence[str]], np.ndarray]
_OPSET = 20


def ours(folder: Path, engine: str, max_length: int, threads: int) -> Answer:
    """The candidate's own runnable folder, as it was measured: with the threads that its export found the quickest."""
    return _answering(folder, _threads.load(engine, folder, threads), max_length)


def plain_torch(folder: Path, dtype: str, compile_: str, max_length: int, threads: int) -> Answer:
    """PyTorch as it is, or under torch.compile.

    Args:
        compile_: torch.compile's `mode`; empty for none.
    """
    import torch

    torch.set_num_threads(threads)
    model: Any = task.load_model(folder).to(getattr(torch, dtype))
    forward = torch.compile(model, mode=compile_) if compile_ else model

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return forward(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits.float().numpy()

    return _answering(folder, run, max_length)


def onnx_runtime(folder: Path, quantize: str, texts: list[str], max_length: int, threads: int) -> Answer:
    """ONNX Runtime with its own defaults.

    Args:
        quantize: `none`, `channel` or `tensor` (dynamic int8), or `qdq` (static int8, ranges from the texts).
    """
    import onnxruntime

    model: Any = task.load_model(folder, attention="eager")
    graph = _onnx_graph.classifier(model, _OPSET, max_length, "onnx_runtime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    with TemporaryDirectory() as home:
        path = Path(home) / "model.onnx"
        if quantize == "none":
            path.write_bytes(graph.SerializeToString())
        elif quantize == "qdq":
            _static(graph, path, folder, texts, max_length)
        else:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(graph, path, per_channel=quantize == "channel", weight_type=QuantType.QInt8)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return _answering(folder, lambda inputs: session.run(None, inputs)[0], max_length)


def _static(graph: Any, path: Path, folder: Path, texts: list[str], max_length: int) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    tokenizer = task.load_tokenizer(folder)

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows: Iterator[dict[str, np.ndarray]] = (task.encode(tokenizer, [text], max_length) for text in texts)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    whole, ready = path.with_name("float.onnx"), path.with_name("ready.onnx")
    whole.write_bytes(graph.SerializeToString())
    quant_pre_process(whole, ready, skip_symbolic_shape=True)
    quantize_static(ready, path, Rows(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])


def openvino(folder: Path, precision: str, texts: list[str], max_length: int, threads: int) -> Answer:
    """OpenVINO for latency.

    Args:
        precision: `f32`, `bf16`, or `int8` by NNCF with ranges from the texts, the rest in OpenVINO's default.
    """
    core = openvino_ir._openvino()
    graph = openvino_ir._traced(task.load_model(folder), max_length)
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision == "int8":
        import nncf

        tokenizer = task.load_tokenizer(folder)
        rows = [task.encode(tokenizer, [text], max_length) for text in texts]
        graph = nncf.quantize(graph, nncf.Dataset(rows), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows))
    else:
        settings["INFERENCE_PRECISION_HINT"] = precision
    request = core.compile_model(graph, "CPU", settings).create_infer_request()
    return _answering(folder, lambda inputs: request.infer([inputs["input_ids"], inputs["attention_mask"]])[0], max_length)


def _answering(folder: Path, run: _graph.Run, max_length: int) -> Answer:
    tokenizer = task.load_tokenizer(folder)
    return lambda texts: run(task.encode(tokenizer, texts, max_length))


def labels(answer: Answer, texts: list[str], batch: int) -> list[int]:
    """The best label of each text; also what warms every length up."""
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    found = np.empty(len(texts), np.int64)
    for at in range(0, len(order), batch):
        found[order[at:at + batch]] = answer([texts[row] for row in order[at:at + batch]]).argmax(-1)
    return [int(label) for label in found]


def times(answer: Answer, texts: list[str], batch: int) -> list[float]:
    """Milliseconds of each whole batch, after a pause (the threads of who ran before may still spin) and two calls."""
    time.sleep(0.06)
    for _ in range(2):
        answer(texts[:batch])
    taken = []
    for at in range(0, len(texts) - batch + 1, batch):
        started = time.perf_counter()
        answer(texts[at:at + batch])
        taken.append(1e3 * (time.perf_counter() - started))
    return taken
