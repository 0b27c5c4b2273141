"""The device that fits run on: a GPU where torch finds one (CUDA, ROCm, Apple's mps), else the CPU.

`TRIMTUNE_DEVICE=cpu` keeps fits on the CPU. Under torchrun each process takes the GPU of its local rank. What is measured
afterwards is measured where the engines run: on the CPU.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError
from trimtune.process import memory_mb

if TYPE_CHECKING:
    import torch


def here() -> torch.device:
    """The device of this process.

    Raises:
        TrimtuneError: more processes than GPUs.
    """
    import torch

    if os.environ.get("TRIMTUNE_DEVICE") == "cpu" or not torch.accelerator.is_available():
        return torch.device("cpu")
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    device = torch.device(kind.type, int(os.environ.get("LOCAL_RANK", 0)))
    if device.index >= torch.accelerator.device_count():
        raise TrimtuneError(f"torchrun: process {device.index} of this machine has no GPU of its own.",
                            f"Allowed: as many processes per machine as it has GPUs ({torch.accelerator.device_count()}).",
                            "Start fewer with --nproc-per-node, or set TRIMTUNE_DEVICE=cpu.")
    if kind.type != "mps":  # which has one only
        torch.accelerator.set_device_index(device.index)
    return device


def of(model: torch.nn.Module) -> torch.device:
    """Where the model lies."""
    return next(model.parameters()).device


def put(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Move a model here, with its parameters in `dtype`. Its buffers keep their own: rotary frequencies rounded to bf16 would
    turn a token at position 512 by 0.6 radians (heads of 128)."""
    model.to(here())
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def wait(device: torch.device) -> None:
    """Return when the device has done all that it was given; the CPU always has."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def limit_mb(device: torch.device) -> float:
    """MB that the processes of this machine share on the CPU, or that this process has on its GPU."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 1e6
    return memory_mb() / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def facts(device: torch.device) -> dict[str, Any]:
    """`device`, and on CUDA `device_memory_mb`: the most that this process's tensors took there."""
    import torch

    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "device_memory_mb": torch.cuda.max_memory_allocated(device) / 1e6}
    return {"device": device.type}
