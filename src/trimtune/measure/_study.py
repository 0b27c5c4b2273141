"""What measures take of a study beside its candidates: their settings, and what the untuned model gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.records import Artifact, Study
from trimtune.store import Store
from trimtune.study.uses import tasks_of

_FILE = "reference.json"


def settings_of(study: Study) -> dict[str, dict[str, Any]]:
    """Measure → what differs from its defaults, of those of the study's task that ask the study.

    Raises:
        TrimtuneError: a file that the study names can't be used.
    """
    modules = {name: parts.load("measure", name) for name in parts.names("measure")}
    return {name: module.settings(study) for name, module in modules.items()
            if study.task in tasks_of(module) and hasattr(module, "settings")}


def references(configs: Mapping[str, dict[str, Any]], base: Artifact, task: str, max_length: int,
               store: Store) -> dict[str, dict[str, Any]]:
    """What the untuned model gives to each measure that compares with it (has `reference`): one step each, for all candidates.

    Where that fails, `lacking` says why.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, config in configs.items():
        if not hasattr(parts.load("measure", name), "reference"):
            continue
        shared = {"config": config, "task": task, "max_length": max_length}
        code = parts.source_hash("measure", name) + parts.source_hash("task", task) + parts.shared_hash("engine")
        try:
            made = store.step("reference", name, _refer, {**shared, "measure": name, "base": base.folder}, config=shared,
                              parents=(base,), code=code)
            found[name] = json.loads((made.folder / _FILE).read_text(encoding="utf-8"))
        except StepFailed as failure:
            found[name] = {"lacking": f"the untuned model can't be measured: {failure.cause}"}
    return found


def _refer(folder: Path, *, measure: str, base: Path, config: dict[str, Any], task: str, max_length: int) -> dict[str, Any]:
    """Work of the step."""
    module = parts.load("measure", measure)
    taken = module.reference(base, module.Config(**config), task, max_length)
    (folder / _FILE).write_text(json.dumps(taken), encoding="utf-8")
    return {}
