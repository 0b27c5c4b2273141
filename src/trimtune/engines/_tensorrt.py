"""TensorRT by its own Python API: a plan from an ONNX graph, and a run of one. Not yet run on a GPU.

A plan holds kernels for each bucket of shapes, an optimization profile in TensorRT's words. Networks are strongly typed: the
graph's own number format is what runs. TensorRT 11 has no other kind, and 10 has this one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from trimtune.engines import _graph
from trimtune.engines._onnx_graph import INPUTS, LOGITS
from trimtune.engines._shape_buckets import Bucket, fitting
from trimtune.errors import StepFailed

if TYPE_CHECKING:
    import numpy as np


def capability() -> tuple[int, int]:
    """This GPU's compute capability, such as (8, 9)."""
    import torch

    found: tuple[int, int] = torch.cuda.get_device_capability()
    return found


def build(graph: bytes, wanted: Sequence[Bucket], workspace_bytes: int, timings: bytes = b"") -> tuple[bytes, bytes]:
    """The serialized plan of an ONNX graph, and the timing cache that its build leaves.

    Args:
        workspace_bytes: GPU memory that a kernel may take beside its inputs and outputs.
        timings: the cache of an earlier build; empty for none.

    Raises:
        StepFailed: TensorRT refused the graph, the cache or the shapes, with what it said.
    """
    import tensorrt

    log = _log()
    builder = tensorrt.Builder(log)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse(graph):
        said = "; ".join(str(parser.get_error(at).desc()) for at in range(parser.num_errors))
        raise StepFailed(f"tensorrt_plan: TensorRT can't read the graph: {said}")
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # on by default, and no float32: inputs of products are rounded to 10 bits
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, workspace_bytes)
    cache_ = config.create_timing_cache(timings)
    if cache_ is None or not config.set_timing_cache(cache_, False):
        raise _refused("the timing cache", log)
    for smallest, usual, largest in wanted:
        profile = builder.create_optimization_profile()
        for name in INPUTS:
            profile.set_shape(name, smallest, usual, largest)
        if config.add_optimization_profile(profile) < 0:
            raise _refused(f"rows of shapes {smallest} to {largest}", log)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _refused("to build a plan", log)
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def runner(plan: bytes, have: Sequence[Bucket]) -> _graph.Run:
    """Run a plan on this GPU: logits [B, C] of any B; T at most what its buckets take.

    Raises:
        StepFailed: TensorRT can't load it.
    """
    import numpy as np
    import tensorrt
    import torch

    log, stream = _log(), torch.cuda.Stream()
    runtime = tensorrt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise _refused("to load the plan", log)
    most = max(profile.largest[0] for profile in have)

    @cache
    def context(at: int) -> Any:
        """One for each profile, so that no call has to switch; its memory is that of the profile and not of the largest."""
        made = engine.create_execution_context(tensorrt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE)
        if made is None or not made.set_optimization_profile_async(at, stream.cuda_stream):
            raise _refused(f"to run rows of shapes up to {have[at].largest}", log)
        return made

    def piece(inputs: _graph.Inputs) -> np.ndarray:
        rows, tokens = inputs[INPUTS[0]].shape
        at = fitting(have, rows, tokens)
        if at is None:
            raise StepFailed(f"tensorrt_plan: {rows} rows of {tokens} tokens; the plan takes up to {have[-1].largest}")
        ready = context(at)
        with torch.cuda.stream(stream):
            given = {name: torch.from_numpy(np.ascontiguousarray(inputs[name])).cuda() for name in INPUTS}
            for name, tensor in given.items():
                ready.set_input_shape(name, tuple(tensor.shape))
                ready.set_tensor_address(name, tensor.data_ptr())
            logits_BC = torch.empty(tuple(ready.get_tensor_shape(LOGITS)), dtype=torch.float32, device="cuda")
            ready.set_tensor_address(LOGITS, logits_BC.data_ptr())
            if not ready.execute_async_v3(stream.cuda_stream):
                raise _refused(f"to run {rows} rows of {tokens} tokens", log)
            found: np.ndarray = logits_BC.cpu().numpy()  # waits for the stream
        return found

    def run(inputs: _graph.Inputs) -> np.ndarray:
        rows = len(inputs[INPUTS[0]])
        parts = [piece({name: inputs[name][at:at + most] for name in INPUTS}) for at in range(0, rows, most)]
        return np.concatenate(parts)

    return run


def _log() -> Any:
    """A logger that prints nothing and keeps the errors, to be told in the failure that follows."""
    import tensorrt

    class Log(tensorrt.ILogger):
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (tensorrt.ILogger.Severity.ERROR, tensorrt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()


def _refused(what: str, log: Any) -> StepFailed:
    return StepFailed(f"tensorrt_plan: TensorRT refused {what}: {'; '.join(log.errors[-3:]) or 'it gave no reason'}")
