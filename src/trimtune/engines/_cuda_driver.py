"""What NVIDIA's driver says of this machine's GPU, asked without importing anything heavy and without taking its memory."""

from __future__ import annotations

import ctypes
from typing import Any

_LIBRARY = "libcuda.so.1"


def lacking() -> str | None:
    """Why there is no CUDA device; None if there is one."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return f"no CUDA driver ({_LIBRARY}): install NVIDIA's, or use a machine with a GPU"
    count = ctypes.c_int(0)
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code or count.value < 1:
        return f"no CUDA device (the driver says {code}): look at nvidia-smi, and at CUDA_VISIBLE_DEVICES"
    return None


def device_name() -> str:
    """The name of the first GPU that this process may use, as nvidia-smi shows it; only where `lacking` finds nothing."""
    driver: Any = ctypes.CDLL(_LIBRARY)
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
    driver.cuInit(0)
    driver.cuDeviceGet(ctypes.byref(device), 0)
    driver.cuDeviceGetName(name, len(name), device)
    return name.value.decode()
