"""What the readings were taken on, and this process's own memory as the system counts it.

`describe` holds only what stays as it is between two runs: it is part of the key under which measurements are kept.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
from functools import cache
from pathlib import Path
from typing import Any

from trimtune.measure import _energy
from trimtune.process import threads

_FLAGS = {"avx2": "avx2", "avx512f": "avx512", "avx512_vnni": "avx512_vnni", "avx_vnni": "avx_vnni",
          "avx512_bf16": "avx512_bf16", "amx_tile": "amx_tile", "amx_bf16": "amx_bf16", "amx_int8": "amx_int8",
          "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16"}
"""CPU flags that decide which kernels an engine can use, by their name in /proc/cpuinfo"""


@cache
def describe() -> dict[str, Any]:
    """CPU model, cores that may be used, memory, system, the CPU flags that matter; `energy` names its source or `none`."""
    return {"cpu": _cpu_field("model name") or platform.processor() or platform.machine(), "cores": threads(),
            "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}", "flags": _flags(),
            "energy": _energy.source()}


def available_memory_mb() -> float:
    """Memory that can be taken without swapping, in MB (10^6 bytes); half of all memory where the system doesn't say."""
    found = _kilobytes(Path("/proc/meminfo"), "MemAvailable")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return found * 1024 / 1e6 if found is not None else total / 2e6


def reset_peak() -> bool:
    """Make `peak_mb` count from now on. False where the system can't: the peak is then that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_mb() -> float:
    """Highest resident memory of this process since the last `reset_peak`, in MB (10^6 bytes)."""
    found = _kilobytes(Path("/proc/self/status"), "VmHWM")
    if found is not None:
        return found * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def private_mb() -> float | None:
    """This process's memory that no file backs, in MB (10^6 bytes). None where the system doesn't tell."""
    found = _kilobytes(Path("/proc/self/smaps_rollup"), "Anonymous")
    return None if found is None else found * 1024 / 1e6


def _kilobytes(path: Path, field: str) -> int | None:
    if not path.exists():
        return None
    return next((int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(field + ":")), None)


def _flags() -> list[str]:
    has = set((_cpu_field("flags") or _cpu_field("Features")).split())
    return [name for flag, name in _FLAGS.items() if flag in has]


def _cpu_field(field: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), "")
