"""Test processes side by side (`pytest -n 2`) keep out of each other's way: each has cores of its own.

torch, ONNX Runtime and OpenVINO start a thread per core that they see. Two processes that see the same two cores wait for each
other at every product; with one core each they don't. Whatever a test starts inherits the cores.
"""

from __future__ import annotations

import os
from collections.abc import Sequence


def share(cores: Sequence[int], index: int, count: int) -> set[int]:
    """The cores of the `index`-th of `count` processes; all of them where there are fewer cores than processes."""
    return set(cores[index::count] if count <= len(cores) else cores)


def take(environment: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Keep this process to its share, if pytest-xdist started it."""
    worker = environment.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        count = int(environment["PYTEST_XDIST_WORKER_COUNT"])
        os.sched_setaffinity(0, share(sorted(os.sched_getaffinity(0)), int(worker.removeprefix("gw")), count))
