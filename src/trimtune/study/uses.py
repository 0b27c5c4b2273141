"""Uses of parts in a study: `lora`, `{lora: {r: 16}}`, and chains of trims such as `[prune_ffn, int8]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.records import Use
from trimtune.study.check import check, kind_of, quoted
from trimtune.study.document import Place

NONE, AUTO = "none", "auto"
"""the trim that does nothing, always in the race; and chains that are searched"""

Chain = tuple[Use, ...]


def uses(kind: str, given: Any, task: str, place: Place) -> tuple[Use, ...]:
    """The parts of one kind, in the study's order.

    Raises:
        TrimtuneError: no list, an unknown part, a bad config, a part that can't do the task, the same use twice.
    """
    entries = _list(given, kind, place)
    if not entries:
        raise TrimtuneError(f"{place}: the list is empty.", f"Allowed: one or more of {', '.join(parts.names(kind))}.",
                            f"Name one, or leave '{place.path[-1]}' out to get the default.")
    found = tuple(_use(kind, entry, task, place / index) for index, entry in enumerate(entries))
    _refuse_twice([(use,) for use in found], place)
    return found


def chains(given: Any, task: str, place: Place, folder: Path | None = None) -> tuple[Chain, ...]:
    """The trim chains, in the study's order; the empty chain (`none`) comes first if the study leaves it out.

    Relative paths in a trim's settings are taken from `folder`. `auto` is no chain; `searched` tells whether it stands there.
    """
    found: list[Chain] = []
    for index, entry in enumerate([] if given == AUTO else _list(given, "trim", place)):
        at = place / index
        if entry == NONE:
            found.append(())
        elif entry == AUTO:
            continue
        elif isinstance(entry, list):
            found.append(_chain(entry, task, at, folder))
        else:
            found.append((_use("trim", entry, task, at, folder),))
    _refuse_twice(found, place)
    return tuple(found if () in found else [(), *found])


def searched(given: Any, task: str, place: Place) -> bool:
    """Whether a study's `trim` asks for `auto`.

    Raises:
        TrimtuneError: there is nothing to search among for this task.
    """
    if given != AUTO and not (isinstance(given, list) and AUTO in given):
        return False
    trims = able("trim", parts.names("trim"), task)
    if not any(hasattr(parts.load("trim", name), "AUTO") for name in trims):
        raise TrimtuneError(f"{place}: `{AUTO}` can't search for the task {task}: no trim for it may stand in a searched chain.",
                            "Allowed: for a task of which some trim says so with AUTO.",
                            f"Name the trims: {', '.join([NONE, *trims])}.")
    return True


def able(kind: str, names: list[str], task: str) -> list[str]:
    """Those that can do the task."""
    return [name for name in names if task in tasks_of(parts.load(kind, name))]


def defaults(kind: str, names: list[str]) -> tuple[Use, ...]:
    """Uses of parts as they are, with nothing changed."""
    return tuple(Use(name=name, config=parts.load(kind, name).Config().model_dump(mode="json")) for name in names)


def _chain(entries: list[Any], task: str, place: Place, folder: Path | None) -> Chain:
    if not entries or NONE in entries:
        raise TrimtuneError(f"{place}: {quoted(entries)} is no chain of trims.", f"`{NONE}` stands alone, outside of any chain.",
                            f"Write `- {NONE}` as an entry of its own, or name the trims only.")
    chain = tuple(_use("trim", entry, task, place / index, folder) for index, entry in enumerate(entries))
    for index, use in enumerate(chain):
        if index < len(chain) - 1 and getattr(parts.load("trim", use.name), "NUMERICS", None):
            raise TrimtuneError(f"{place / index}: '{use.name}' stands before '{chain[index + 1].name}'.",
                                f"'{use.name}' is done by the engine, after all other trims: it must be the last of its chain.",
                                f"Write [{', '.join([*(u.name for u in chain if u is not use), use.name])}].")
        barred: dict[str, str] = getattr(parts.load("trim", use.name), "NOT_AFTER", {})
        before = next((earlier for earlier in chain[:index] if earlier.name in barred), None)
        if before:
            raise TrimtuneError(f"{place / index}: '{use.name}' stands behind '{before.name}'.",
                                f"'{use.name}' can't follow '{before.name}': {barred[before.name]}.",
                                f"Put '{use.name}' before '{before.name}'.")
        fitted = next((later for later in chain[index + 1:] if later.config.get("epochs")), None)
        if fitted and getattr(parts.load("trim", use.name), "UNDONE_BY_FITS", False):
            first = "Leave one of them out" if parts.load("trim", fitted.name).NUMERICS else f"Put '{use.name}' behind it"
            raise TrimtuneError(f"{place / index}: '{use.label}' stands before '{fitted.label}'.",
                                f"'{fitted.name}' fits all weights again, which undoes what '{use.name}' did to single ones.",
                                f"{first}, or write {{{fitted.name}: {{epochs: 0}}}}.")
        if any(_same(use, other) for other in chain[:index]):
            raise TrimtuneError(f"{place / index}: '{use.label}' is in this chain twice.",
                                "Each trim is allowed once in a chain.", "Remove one.")
    return chain


def _list(given: Any, kind: str, place: Place) -> list[Any]:
    if isinstance(given, list):
        return given
    names = f" of {', '.join(parts.names(kind))}" if given is None else ""
    shown = given if isinstance(given, str) else "…"
    raise TrimtuneError(f"{place}: {kind_of(given)} was given.", f"Allowed: a list{names}, even of one.",
                        f"Write {place.path[-1]}: [{shown}], or leave '{place.path[-1]}' out to get the default.")


def _use(kind: str, entry: Any, task: str, place: Place, folder: Path | None = None) -> Use:
    name, given = entry, None
    if isinstance(entry, dict) and len(entry) == 1:
        (name, given), = entry.items()
        place = place / name
    elif isinstance(entry, dict) and entry:
        first = next(iter(entry))
        raise TrimtuneError(f"{place}: {len(entry)} keys ({', '.join(entry)}) where one {kind} belongs.",
                            f"Allowed: a name, or one name with its settings: {{{first}: {{key: value}}}}.",
                            f"Indent the settings under '{first}', or begin the next {kind} with its own '-'.")
    if not isinstance(name, str):
        raise TrimtuneError(f"{place}: {quoted(name)} is {kind_of(name)}.",
                            f"Allowed: {', '.join(parts.names(kind))}, or one with settings: {{name: {{key: value}}}}.",
                            f"Name a {kind} here.")
    module = parts.load(kind, name, str(place))
    name = name.replace("-", "_")
    if task not in tasks_of(module):
        raise TrimtuneError(f"{place}: '{name}' can't do the task {task}.", f"It can do: {', '.join(sorted(tasks_of(module)))}.",
                            "Leave it out of this study.")
    config = check(module.Config, given, place, f"{name}: {{key: value}}", folder).model_dump(mode="json")
    # a path stays as it was written in the label, and is absolute in the config
    return Use(name=name, config=config, given={key: value if isinstance(value, str) else config[key]
                                                for key, value in (given or {}).items()})


def refuse_packing(asked: str, task: str, tune: tuple[Use, ...], place: Place) -> None:
    """Refuse `packing: on` for rows or methods that can't be packed."""
    if asked == "on" and not getattr(parts.load("task", task), "PACKS", False):
        raise TrimtuneError(f"{place}: the rows of {task} can't be packed.",
                            "Allowed: auto or off; on for language models (`task: causal-lm`).", "Leave packing out.")
    virtual = ", ".join(use.label for use in tune if asked == "on" and use.config.get("virtual_tokens"))
    if virtual:
        raise TrimtuneError(f"{place}: {virtual} can't be packed: virtual tokens stand once per line, not once per row.",
                            "Allowed with virtual tokens: auto, which pads their rows and packs those of other methods, or off.",
                            "Write packing: auto.")


def tasks_of(module: Any) -> set[str]:
    """The tasks that a part can do, by their file names."""
    return {task.replace("-", "_") for task in module.TASKS}


def _same(one: Use, other: Use) -> bool:
    return (one.name, one.config) == (other.name, other.config)


def _refuse_twice(found: list[Chain], place: Place) -> None:
    for index, chain in enumerate(found):
        for earlier, other in enumerate(found[:index]):
            if len(chain) == len(other) and all(map(_same, chain, other)):
                name = " + ".join(use.label for use in chain) or NONE
                raise TrimtuneError(f"{place / index}: '{name}' is the same as {place.path[-1]}[{earlier}].",
                                    "Each entry is allowed once, and must differ from the others in name or settings.",
                                    "Remove one of the two.")
