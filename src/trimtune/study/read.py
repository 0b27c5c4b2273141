"""A study file, or the same as a dict, to a `Study`: every name known, every config checked, every default filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from trimtune import parts
from trimtune.errors import TrimtuneError, unknown
from trimtune.records import Auto, Budget, Fit, Prefer, Study, Use, preferable
from trimtune.study import document, limits, sources
from trimtune.study.check import check, kind_of, quoted
from trimtune.study.document import Place
from trimtune.study.expand import every, expand
from trimtune.study.model import EMBEDDED, NAMES, named
from trimtune.study.schema import schema as schema
from trimtune.study.uses import able, chains, defaults, refuse_packing, searched, tasks_of, uses

TUNE = ["head", "full", "lora", "prefix", "prompt"]
TRIM = ["none", "int8"]
"""what a study takes that names none, as far as its task allows"""
MODEL, TASK = EMBEDDED, "text-classification"

_MAX_SEED = 2**32 - 1
_NAME = re.compile(r"\w[\w.-]{0,63}")
_WINDOWS = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}


def read(path: Path) -> Study:
    """The study in a YAML file. Its relative paths are taken from the file's folder.

    Raises:
        TrimtuneError: with file, line and key.
    """
    given, place = document.load(path)
    return _study(given, place, path.parent)


def without_parts(path: Path) -> Study:
    """The study in a file without what is tried on its rows: for looking at these alone."""
    given, place = document.load(path)
    _known(given, place)
    task = _task(given.get("task", TASK), place / "task")
    return Study(tune=(), trim=(), engine=(), **_rows(given, place, path.parent), task=task)


def resolve(given: Mapping[str, Any], where: str, folder: Path) -> Study:
    """The same from a dict in a study file's shape.

    Args:
        where: what errors call the dict.
        folder: relative paths are taken from here.
    """
    try:
        plain = json.loads(json.dumps(dict(given), default=_as_text))
    except (TypeError, ValueError, RecursionError) as error:
        raise TrimtuneError(f"{where}: the study can't be read ({error}).", "It must be built of dicts, lists, text and numbers.",
                            "Replace other objects.") from None
    return _study(plain, Place(where), folder)


def _study(given: dict[str, Any], place: Place, folder: Path) -> Study:
    _known(given, place)
    task = _task(given.get("task", TASK), place / "task")
    rows = _rows(given, place, folder)
    study = Study(
        **rows,
        task=task,
        smaller=_smaller(given.get("smaller"), rows["model"], folder, place / "smaller"),
        tune=uses("method", given.get("tune", able("method", TUNE, task)), task, place / "tune"),
        trim=chains(given.get("trim", ["none", *able("trim", TRIM[1:], task)]), task, place / "trim", folder),
        auto=_auto(given, task, place),
        engine=uses("engine", given["engine"], task, place / "engine") if "engine" in given else _engines_here(task, place),
        budget=check(Budget, given.get("budget"), place / "budget", "budget: {trials: 6, seeds: 3, minutes: 20}"),
        require=limits.read(given.get("require"), place / "require", task, rows["data"]),
        prefer=_prefer(given.get("prefer", "quality"), task, place / "prefer"))
    refuse_packing(study.fit.packing, task, study.tune, place / "fit" / "packing")
    return _skipping(given.get("skip"), place / "skip", study)


def _auto(given: dict[str, Any], task: str, place: Place) -> Auto | None:
    if not searched(given.get("trim"), task, place / "trim"):
        if "auto" in given:
            raise TrimtuneError(f"{place / 'auto'}: it says how chains are searched, and `trim` asks for no search.",
                                "Allowed beside trim: auto, or beside a list with auto in it.",
                                "Write trim: [none, auto], or remove `auto`.")
        return None
    return check(Auto, given.get("auto"), place / "auto", "auto: {tries: 10, keep: 3}")


def _known(given: dict[str, Any], place: Place) -> None:
    for key in given:
        if key not in Study.model_fields:
            raise unknown("key", key, Study.model_fields, str(place / key), "Correct or remove it.")


def _rows(given: dict[str, Any], place: Place, folder: Path) -> dict[str, Any]:
    """The fields of a study that say what its rows are and how a fit sees them."""
    return dict(name=_name(given.get("name"), place / "name"),
                model=_model(given.get("model", MODEL), folder, place / "model"),
                data=sources.read(given.get("data"), folder, place / "data"),
                fit=check(Fit, given.get("fit"), place / "fit", "fit: {epochs: 4}"),
                seed=_seed(given.get("seed", 0), place / "seed"))


def _skipping(given: Any, place: Place, study: Study) -> Study:
    """The study without the candidates that the patterns name; each must name some, and some must be left."""
    names = [candidate.name for candidate in every(study)]
    if given is not None and (not isinstance(given, list) or not all(isinstance(one, str) for one in given)):
        raise TrimtuneError(f"{place}: {quoted(given)} is no list of patterns.",
                            f"Allowed: patterns of candidate names; * stands for anything. The first candidate is {names[0]}.",
                            'Write it as skip: ["head+*", "*@torch_eager"].')
    for at, pattern in enumerate(given or []):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise unknown("candidate", pattern, names, str(place / at), "* stands for anything; remove what skips nothing.")
    study = study.model_copy(update={"skip": tuple(given or ())})
    if not expand(study):
        raise TrimtuneError(f"{place}: these patterns skip all {len(names)} candidates.", "At least one must be left.",
                            "Remove a pattern.")
    return study


def _text(given: Any, place: Place, allowed: str, example: str) -> str:
    if isinstance(given, str) and given.strip():
        return given
    what = "nothing was given" if given is None or given == "" else f"{quoted(given)} is {kind_of(given)}"
    raise TrimtuneError(f"{place}: {what}.", f"Allowed: {allowed}.", f"Write {example}.")


def _name(given: Any, place: Place) -> str:
    rule = "a name of at most 64 letters, digits, '-', '_' and '.', since the run's folder gets it"
    name = _text(given, place, rule, "name: helpdesk (a number in quotes)")
    if not _NAME.fullmatch(name) or name.endswith(".") or name.lower().split(".")[0] in _WINDOWS or len(name.encode()) > 200:
        safe = re.sub(r"[^\w-]+", "-", name).strip("-")[:64]
        raise TrimtuneError(f"{place}: {quoted(name)} can't be a folder's name everywhere.", f"Allowed: {rule}.",
                            f"Write name: {safe if safe and safe.lower() not in _WINDOWS else 'my-study'}.")
    return name


def _task(given: Any, place: Place) -> str:
    name = _text(given, place, f"one of {', '.join(parts.names('task'))}", f"task: {TASK}").replace("-", "_")
    if name not in parts.names("task"):
        raise unknown("task", name, parts.names("task"), str(place), f"Write task: {TASK}.")
    return name


def _smaller(given: Any, model: str, folder: Path, place: Place) -> str | None:
    found = None if given is None else _model(given, folder, place, "smaller: sentence-transformers/paraphrase-MiniLM-L3-v2")
    if found == model:
        raise TrimtuneError(f"{place}: {quoted(given)} is the study's model itself.", "Allowed: a smaller model than that.",
                            "Name one, or remove the key.")
    return found


def _model(given: Any, folder: Path, place: Place, example: str = f"model: {MODEL}") -> str:
    return named(_text(given, place, NAMES, example), folder, place)


def preferences(task: str) -> tuple[Prefer, ...]:
    """What may decide between the candidates of a study with this task."""
    return preferable(limits.known(task))


def _prefer(given: Any, task: str, place: Place) -> Prefer:
    known = preferences(task)
    if given not in known:
        raise unknown("preference", given if isinstance(given, str) else json.dumps(given), known, str(place),
                      "Write one of these.")
    return cast(Prefer, given)


def _seed(given: Any, place: Place) -> int:
    if type(given) is not int or not 0 <= given <= _MAX_SEED:
        raise TrimtuneError(f"{place}: {quoted(given)} is no seed.", f"Allowed: a whole number from 0 to {_MAX_SEED}.",
                            "Write seed: 0.")
    return given


def _engines_here(task: str, place: Place) -> tuple[Use, ...]:
    """The engines that can run here, without those that say `ONLY_IF_NAMED`."""
    every_ = {name: parts.load("engine", name) for name in parts.names("engine")}
    modules = {name: module for name, module in every_.items() if not getattr(module, "ONLY_IF_NAMED", False)}
    reasons = {name: module.available() for name, module in modules.items() if task in tasks_of(module)}
    here = [name for name, reason in reasons.items() if reason is None]
    if not here:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise TrimtuneError(f"{place / 'engine'}: no engine can run here.", why or f"There is none for the task {task}.",
                            "Install one, then try again.")
    return defaults("engine", here)


def _as_text(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} in it")
