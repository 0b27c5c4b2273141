"""Where rows may come from: a file, a data set on the hub, or one that is bundled with the package."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from trimtune.errors import TrimtuneError
from trimtune.records import DataSpec
from trimtune.study import answer_format, general, hub
from trimtune.study.check import check, kind_of, quoted
from trimtune.study.document import Place
from trimtune.study.table import Table
from trimtune.study.tables import open_table
from trimtune.study.text_file import shown

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
SPLITS = ("train", "validation", "test")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?", re.ASCII)
_TAKEN = f"Allowed: a file ({', '.join(EXTENSIONS)}), a hub id 'owner/name' or 'owner/name:config', or a bundled set"


def bundled() -> dict[str, Path]:
    """Name → folder of the sets that come with the package: the folder `data/` is the list."""
    root = Path(__file__).parent.parent / "data"
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(("_", "."))}


def bundled_file(name: str, split: str) -> Path | None:
    """The file of a bundled set's split, if it has one."""
    return next((path for path in sorted(bundled()[name].glob(f"{split}.*")) if path.suffix in EXTENSIONS), None)


def is_hub(name: str) -> bool:
    """Whether the name can only be a hub id: it has the shape of one, and no such file exists."""
    return _could_be_hub(name) and not os.path.exists(name)


def read(given: Any, folder: Path, place: Place) -> DataSpec:
    """A study's `data`: one name, or a mapping with a name per split. Paths become absolute, taken from `folder`.

    Raises:
        TrimtuneError: no such file, a folder, an unknown kind of file, one file used for two splits.
    """
    if given is None:
        raise TrimtuneError(f"{place}: the study names no data.", f"{_TAKEN} ({', '.join(bundled()) or 'none'}).",
                            "Add `data: {train: train.csv}`.")
    if not isinstance(given, (str, dict)):
        raise TrimtuneError(f"{place}: {quoted(given)} is {kind_of(given)}.",
                            f"{_TAKEN}; or a mapping with train, validation and test.", "Write `data: {train: train.csv}`.")
    values = {"train": given} if isinstance(given, str) else given
    if values.get("format") is not None:
        form = answer_format.read(values["format"], folder, place / "format")
        values = {**values, "format": form.model_dump(exclude_none=True)}
    spec = check(DataSpec, values, place, "data: {train: train.csv}")
    paths = {}
    for split in SPLITS:
        name = getattr(spec, split)
        if name is not None:
            paths[split] = located(name, folder, str(place if isinstance(given, str) else place / split))
    if spec.template is not None:
        paths["template"] = str(file_of(spec.template, folder, str(place / "template"), "a file with a chat template in Jinja"))
    if spec.general is not None:
        kinds = (*general.PLAIN, *EXTENSIONS)
        path = file_of(spec.general, folder, str(place / "general"), f"a file of general text ({', '.join(kinds)})", kinds)
        paths["general"] = str(path)
    for index, split in enumerate(SPLITS):
        for earlier in SPLITS[:index]:
            if os.path.isfile(paths.get(split, "")) and os.path.isfile(paths.get(earlier, "")) \
                    and os.path.samefile(paths[split], paths[earlier]):
                raise TrimtuneError(f"{place / split}: {shown(Path(paths[split]))} is given for {earlier} too.",
                                    "Each split needs rows of its own, or the scores mean nothing.",
                                    f"Give another file, or leave '{split}' out: it is then split off the training rows.")
    return spec.model_copy(update=paths)


def file_of(name: str, folder: Path, where: str, allowed: str, endings: tuple[str, ...] = ()) -> Path:
    """The absolute path of a file that a study names.

    Raises:
        TrimtuneError: there is none, or it has another ending.
    """
    path = Path(os.path.abspath(folder / Path(name).expanduser()))
    if not path.is_file():
        raise TrimtuneError(f"{where}: no such file: {shown(path)}.", f"Allowed: {allowed}.",
                            f"Relative paths are taken from {os.path.abspath(folder)}.")
    if endings and path.suffix.lower() not in endings:
        raise TrimtuneError(f"{where}: {shown(path)} has the ending '{path.suffix}'.", f"Allowed: {allowed}.",
                            "Save it as plain text (UTF-8).")
    return path


def refuse(spec: DataSpec, keys: tuple[str, ...], rows: str) -> None:
    """Refuse what a data spec says beside these `rows`, such as a prompt where there are labels."""
    for key in keys:
        if getattr(spec, key) is not None:
            raise TrimtuneError(f"data.{key}: {quoted(_plain(getattr(spec, key)))} is given, but the task takes {rows}.",
                                f"These have no {key}.", f"Leave data.{key} out, or choose another task.")


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else value


def table(source: str, split: str) -> Table | None:
    """A source's rows, not yet read; None where a set has no such split."""
    if source in bundled():
        path = bundled_file(source, split)
        return open_table(path) if path else None
    return hub.open_hub(source, split) if is_hub(source) else open_table(Path(source))


def opened(spec: DataSpec) -> dict[str, Table]:
    """The table of each split that there is, rows not yet read; a set's own validation and test splits are found by name.

    Raises:
        TrimtuneError: no training rows, or a split that the spec names is lacking.
    """
    found = {"train": table(spec.train, "train")}
    if found["train"] is None:
        raise TrimtuneError(f"data.train: '{spec.train}' has no split named train.", "The rows to learn from must be there.",
                            "Give another set, or a file.")
    for name in SPLITS[1:]:
        given, whole_set = getattr(spec, name), spec.train in bundled() or is_hub(spec.train)
        found[name] = table(given or spec.train, name) if given or whole_set else None
        if given and found[name] is None:
            raise TrimtuneError(f"data.{name}: '{given}' has no split named {name} that can be used.",
                                "It must hold rows, with answers if the task has any.",
                                f"Give a file, or leave '{name}' out: it is then split off the training rows.")
    return {name: one for name, one in found.items() if one is not None}


def located(name: str, folder: Path, where: str) -> str:
    """A source's name as `Study` keeps it: the absolute path of a file, a hub id, or the name of a bundled set."""
    if name in bundled():
        return name
    try:
        path = Path(os.path.abspath(folder / Path(name).expanduser()))
        there, is_folder = path.exists(), path.is_dir()
    except (ValueError, OSError, RuntimeError) as error:
        raise TrimtuneError(f"{where}: {quoted(name)} can't be a path ({error}).", f"{_TAKEN}.", "Correct the path.") from None
    if is_folder:
        inside = [file.name for file in sorted(path.iterdir()) if file.suffix.lower() in EXTENSIONS]
        raise TrimtuneError(f"{where}: {shown(path)} is a folder.", f"{_TAKEN} ({', '.join(bundled()) or 'none'}).",
                            f"Give the file inside it ({', '.join(inside[:5]) or 'it has none'}), or let `trimtune init {name}` "
                            "write the study.")
    if not name.strip() or not (there or _could_be_hub(name)):
        raise _absent(name, path, Path(os.path.abspath(folder)), where)
    if there and path.suffix.lower() not in EXTENSIONS:
        raise TrimtuneError(f"{where}: {shown(path)} has the ending '{path.suffix}'.", f"{_TAKEN}.",
                            "Save the rows as CSV (UTF-8, one header row) or as JSON Lines.")
    return str(path) if there else name


def _could_be_hub(name: str) -> bool:
    return bool(_HUB.fullmatch(name)) and Path(name).suffix.lower() not in EXTENSIONS


def _absent(name: str, path: Path, folder: Path, where: str) -> TrimtuneError:
    near: list[str] = []
    if path.parent.is_dir():
        there = [file.name for file in path.parent.iterdir() if file.suffix.lower() in EXTENSIONS]
        near = get_close_matches(path.name, [*there, *bundled()], n=3)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return TrimtuneError(f"{where}: no such file: {shown(path) if name.strip() else quoted(name)}.",
                         f"{_TAKEN} ({', '.join(bundled()) or 'none'}).",
                         f"{hint}Relative paths are taken from {folder}.")
