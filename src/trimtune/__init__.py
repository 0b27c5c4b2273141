"""Tune a pretrained model to your task, trim it to your budget, and know what each choice cost you.

    result = trimtune.run("study.yaml")                        # everything: tune, trim, export, measure, choose, report
    trimtune.tune("train.csv", method="lora", out="out/")      # one fit
    model = trimtune.load("bundle/")                           # what `trimtune ship` wrote
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import trimtune.tune as tune  # a package that can be called
    from trimtune.api import load as load
    from trimtune.api import run as run
    from trimtune.errors import StepFailed as StepFailed
    from trimtune.errors import TrimtuneError as TrimtuneError

__all__ = ["StepFailed", "TrimtuneError", "load", "run", "tune"]

_HOME = {"run": "trimtune.api", "load": "trimtune.api",
         "TrimtuneError": "trimtune.errors", "StepFailed": "trimtune.errors"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import trimtune` alone costs nothing."""
    import importlib

    if name == "__version__":
        from importlib.metadata import version

        return version("trimtune")
    if name == "tune":
        return importlib.import_module("trimtune.tune")
    if name not in _HOME:
        raise AttributeError(f"module 'trimtune' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
