"""What this machine has for trimtune, and what it lacks with the line that would mend it."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.engines._graph import versions
from trimtune.errors import TrimtuneError
from trimtune.measure import _machine
from trimtune.study.model import locate

_PACKAGES = ("trimtune", "torch", "transformers", "peft", "optuna")
"""what every study needs; engines say themselves what they do"""
_NEEDED_MB = 2000
"""free disk space that a study of a small model takes comfortably"""


def examine(runs: Path) -> dict[str, Any]:
    """Plain JSON: packages, cpu, memory, devices, engines (None or why not), models, disk, and `problems` in words."""
    problems: list[str] = []
    modules = {name: parts.load("engine", name) for name in parts.names("engine")}
    engines = {name: module.available() for name, module in modules.items()}
    packages = versions([*_PACKAGES, *(name for module in modules.values() for name in getattr(module, "PACKAGES", ()))])
    if not any(reason is None for reason in engines.values()):
        problems.append("no engine can run here: install one of " + ", ".join(engines))
    place = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free / 1e6
    if free < _NEEDED_MB:
        problems.append(f"only {free:,.0f} MB free at {place}: a study takes {_NEEDED_MB:,} MB or more")
    if not os.access(place, os.W_OK):
        problems.append(f"{place} can't be written: choose another with --runs FOLDER")
    devices, fault = _devices()
    problems += [fault] if fault else []
    return {"python": platform.python_version(), "packages": packages, **_machine.describe(),
            "available_memory_mb": round(_machine.available_memory_mb()), "devices": devices, "engines": engines,
            "models": {"minilm": _model("minilm")}, "disk": {"folder": str(place), "free_mb": round(free)}, "problems": problems}


def _devices() -> tuple[list[str], str]:
    """What PyTorch can compute on, and why it can't be imported if so."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return [], f"PyTorch can't be imported ({' '.join(str(error).split())[:160]}): pip install --force-reinstall torch"
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found, ""


def _model(name: str) -> str | None:
    try:
        locate(name)
    except TrimtuneError as error:
        return f"{error.given} {error.do}"
    return None
