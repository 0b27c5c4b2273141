"""Counters of energy that this machine lets be read: RAPL of its processors, NVML of its GPUs.

RAPL (Intel's manual of system programming, volume 3, "Running Average Power Limit"; AMD's Zen has it too) counts what a whole
package has taken, and what its memory has. Its counters begin anew after `max_energy_range_uj`, some minutes of full load. Cores
and graphics inside a package are part of it and not counted again; `psys` holds everything and is left out for the same reason.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

POWERCAP = Path("/sys/class/powercap")
_NVML = "libnvidia-ml.so.1"


class Counter(NamedTuple):
    """Energy in mJ since some moment in the past."""

    name: str
    read: Callable[[], float]
    turn_mj: float | None = None
    """where it begins anew"""

    def spent_mj(self, before: float, after: float) -> float:
        """Between two readings less than one turn apart."""
        return after - before + (self.turn_mj or 0.0) * (after < before)


def counters(powercap: Path = POWERCAP) -> tuple[list[Counter], str]:
    """All that can be read, or none and why. Without the processor's there are none: what GPUs took while a processor answered
    would mislead.

    Args:
        powercap: where the kernel shows RAPL.
    """
    found, why = rapl(powercap)
    return [*found, *nvml()] if found else [], why


def source() -> str:
    """The counters' names, or `none`."""
    return ", ".join(counter.name for counter in counters()[0]) or "none"


def rapl(powercap: Path) -> tuple[list[Counter], str]:
    """Packages and their memory, by the kernel's files; or none and why. If one can't be read, a sum without it would mislead."""
    zones = sorted(zone for zone in powercap.glob("intel-rapl:*") if (zone / "name").is_file())
    names = {zone.name: (zone / "name").read_text(encoding="ascii").strip() for zone in zones}
    found = []
    for zone in zones:
        name, package = names[zone.name], names.get(zone.name.rpartition(":")[0], "")
        if not name.startswith("package") and name != "dram":
            continue
        try:
            turn_mj = _mj(zone / "max_energy_range_uj")
            _mj(zone / "energy_uj")
        except (OSError, ValueError) as error:
            cause = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
            return [], f"{zone / 'energy_uj'} can't be read: {cause}"
        found.append(Counter(f"RAPL {package} {name}".replace("  ", " "), partial(_mj, zone / "energy_uj"), turn_mj))
    return found, "" if found else f"no counter of energy: {powercap} shows none of the processor"


def nvml() -> list[Counter]:
    """Every GPU whose total energy NVIDIA's driver tells (Volta and later); written against its API, not yet run."""
    try:
        driver: Any = ctypes.CDLL(_NVML)
    except OSError:
        return []
    count = ctypes.c_uint(0)
    if driver.nvmlInit_v2() or driver.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return []
    found = []
    for index in range(count.value):
        handle = ctypes.c_void_p()
        if driver.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) == 0 and _gpu_mj(driver, handle) > 0:
            found.append(Counter(f"NVML GPU {index}", partial(_gpu_mj, driver, handle)))
    return found


def _mj(path: Path) -> float:
    return int(path.read_text(encoding="ascii")) / 1000


def _gpu_mj(driver: Any, handle: ctypes.c_void_p) -> float:
    """Since the driver was loaded; -1 where the GPU doesn't tell."""
    taken = ctypes.c_ulonglong(0)
    return float(taken.value) if driver.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(taken)) == 0 else -1.0
