"""A chain of trims: each link is a step of its own, so chains that begin alike share their beginnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.records import Artifact, Candidate, Study, Use
from trimtune.store import Store, sha256
from trimtune.tune.precision import working_precision
from trimtune.tune.recovery import Setting


def refuse_lacking(candidates: Sequence[Candidate], task: str) -> None:
    """Before anything is tuned: what the candidates' trims read beside model and rows must be there, and be for this task.

    Raises:
        TrimtuneError: a file or a model that a trim names can't be had, or it refuses its settings for the task.
    """
    for trim in {trim.label: trim for candidate in candidates for trim in candidate.trims}.values():
        part = parts.load("trim", trim.name)
        try:
            if hasattr(part, "refuse"):
                part.refuse(trim.config, task)
            if hasattr(part, "files"):
                part.files(trim.config)
        except TrimtuneError as error:
            raise TrimtuneError(f"trim {trim.label}: {error.given}", error.allowed, error.do) from None


def trimmed(trims: Sequence[Use], tuned: Artifact, rows: Artifact, study: Study, store: Store) -> list[Artifact]:
    """The tuned artifact and the model folder after each trim, in order.

    Raises:
        StepFailed: a link failed; the cause names it.
    """
    links = [tuned]
    for trim in trims:
        part = parts.load("trim", trim.name)
        parents = (links[-1], rows) if part.NEEDS_DATA else (links[-1],)
        setting = Setting(rows.folder, study.task, study.fit.max_length, study.fit.batch_size, working_precision(study, store),
                          study.fit.class_weights, study.seed)
        shared = {"config": trim.config, **asdict(setting)}
        del shared["rows"], shared["seed"]  # a parent, and the step's own
        if hasattr(part, "files"):  # that it reads beside these
            shared["files"] = [sha256(path) for path in part.files(trim.config)]
        code = "".join(parts.source_hash("trim", name) for name in (trim.name, *getattr(part, "BUILDS_ON", ())))
        code += parts.source_hash("task", study.task) + parts.room_hash("tune")
        arguments = {"trim": trim.name, "source": links[-1].folder, "config": trim.config, "setting": setting}
        links.append(store.step("trim", trim.name, _run, arguments, config=shared, parents=parents, seed=study.seed, code=code,
                                about=f"of {'+'.join([tuned.part, *(link.part for link in links[1:])])}"))
    return links


def _run(folder: Path, *, trim: str, **arguments: Any) -> dict[str, Any]:
    """By name, so that a part from a folder of the user's is found in the step's process too."""
    facts: dict[str, Any] = parts.load("trim", trim).run(folder, **arguments)
    return facts


def numerics(trims: Sequence[Use]) -> str:
    """The number format that the engine must realize: the last trim's, or `plain`."""
    last = parts.load("trim", trims[-1].name).NUMERICS if trims else None
    return last or "plain"
