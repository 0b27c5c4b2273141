"""The engine step: a model folder becomes a folder that its engine runs, alone and anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.engines import _graph, _threads
from trimtune.errors import Unavailable
from trimtune.process import place, threads
from trimtune.records import Artifact, Candidate, Study
from trimtune.store import Store
from trimtune.trim._chain import numerics


def exported(candidate: Candidate, model: Artifact, rows: Artifact, study: Study, store: Store) -> Artifact:
    """The runnable artifact of a candidate.

    Raises:
        Unavailable: the engine can't run here.
        StepFailed: its export failed.
    """
    engine, wanted = candidate.engine, numerics(candidate.trims)
    reason = why_not(candidate, study.task, model.folder)
    if reason:
        raise Unavailable(reason)
    shared = {"config": engine.config, "numerics": wanted, "max_length": study.fit.max_length, "task": study.task}
    arguments = {**shared, "engine": engine.name, "source": model.folder, "rows": rows.folder}
    part = parts.load("engine", engine.name)
    # other versions may have other kernels, so other files, threads and times
    libraries = _graph.versions(("transformers", *getattr(part, "PACKAGES", ())))
    # an engine whose files run on this machine alone says with `built_for` what else of it they are bound to
    bound: dict[str, Any] = getattr(part, "built_for", dict)()
    here = {**place(), "libraries": libraries, **bound}
    return store.step("engine", engine.name, _export, arguments, config={**shared, **here}, parents=(model, rows),
                      code=parts.source_hash("engine", engine.name) + parts.source_hash("task", study.task)
                      + parts.shared_hash("trim"), about=f"of {candidate.name.rpartition('@')[0]}")


def why_not(candidate: Candidate, task: str, model: Path | None = None) -> str | None:
    """What keeps a candidate from running on this machine, whatever its tuning brings; None: nothing.

    Args:
        model: the folder of the base, or of what became of it: an engine that builds the model from its config alone says
            `PLAIN_SHAPES`, and can't run what a trim leaves that `reshapes` it. None: not asked.
    """
    engine, wanted = candidate.engine.name, numerics(candidate.trims)
    part = parts.load("engine", engine)
    lacking, has = part.available(), part.NUMERICS[task]
    if lacking:
        return f"{engine} is not available here: {lacking}"
    if wanted not in has:
        return f"{engine} has no {wanted} for {task}; it has {', '.join(has)}"
    trim = _reshaping(candidate, model) if model and getattr(part, "PLAIN_SHAPES", False) else None
    return trim and (f"{engine} builds a model from its config alone, and {trim} leaves linear layers in shapes that this "
                     f"model's config can't say: use {' or '.join(_of_any_shape(task, wanted))}")


def _of_any_shape(task: str, numerics: str) -> list[str]:
    """The engines that run what any trim leaves, in this number format."""
    engines = {name: parts.load("engine", name) for name in parts.names("engine")}
    return [name for name, part in engines.items()
            if not getattr(part, "PLAIN_SHAPES", False) and numerics in part.NUMERICS.get(task, ())]


def _reshaping(candidate: Candidate, model: Path) -> str | None:
    """The first trim after which the config of a model no longer says its shapes."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return next((trim.label for trim in candidate.trims
                 if getattr(parts.load("trim", trim.name), "reshapes", lambda *_: False)(trim.config, config)), None)


def _export(folder: Path, *, engine: str, source: Path, rows: Path, config: dict[str, Any], numerics: str,
            max_length: int, task: str) -> dict[str, Any]:
    """Engines calibrate with the texts of labelled rows, of which each takes what it needs; rows of turns have none. Then the
    number of threads is swept, and stands among the folder's notes."""
    train = parts.load("task", task).rows.load(rows).train
    texts = list(getattr(train, "texts", ()))
    facts: dict[str, Any] = parts.load("engine", engine).export(folder, source, config, numerics, texts, max_length, task)
    return {**facts, **_threads.noted(folder, engine, task, texts, max_length, threads())}
