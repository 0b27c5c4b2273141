"""A part is a file: the folder is the list, the file's name is the part's name.

No registry and no decorator. `names("method")` lists `tune/methods/*.py`; `load("method", "lora")` imports that file.
Folders named in the environment variable TRIMTUNE_PARTS (separated like PATH) may add parts: each is laid out like this
package (`tune/methods/mine.py`, `trim/mine.py`, …).
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
from functools import cache
from pathlib import Path
from types import ModuleType

from trimtune.errors import unknown

ROOMS = {"baseline": "tune.baselines", "method": "tune.methods", "trim": "trim", "engine": "engines", "measure": "measure",
         "task": "tasks"}
"""kind of part → the folder that lists them, as a subpackage of trimtune"""


def _package(kind: str) -> ModuleType:
    package = importlib.import_module(f"trimtune.{ROOMS[kind]}")
    for root in filter(None, os.environ.get("TRIMTUNE_PARTS", "").split(os.pathsep)):
        folder = str(Path(root, *ROOMS[kind].split(".")))
        if folder not in package.__path__:
            package.__path__.append(folder)
            importlib.invalidate_caches()
    return package


def _files(kind: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in _package(kind).__path__:
        for path in sorted(Path(folder).glob("*.py")):
            if not path.name.startswith("_"):
                found.setdefault(path.stem, path)
    return found


def names(kind: str) -> list[str]:
    """The parts of a kind, in alphabetical order."""
    return sorted(_files(kind))


def load(kind: str, name: str, where: str = "") -> ModuleType:
    """The module of a part. Hyphens in the name count as underscores.

    Raises:
        TrimtuneError: no such part; the message lists those that exist and offers the nearest.
    """
    stem = name.replace("-", "_")
    if stem not in _files(kind):
        raise unknown(kind, name, names(kind), where, f"`trimtune parts` lists every {kind}.")
    return importlib.import_module(f"trimtune.{ROOMS[kind]}.{stem}")


def doc(kind: str, name: str) -> str:
    """A part's docstring, read without importing the part."""
    return ast.get_docstring(ast.parse(_files(kind)[name].read_text(encoding="utf-8"))) or ""


@cache
def source_hash(kind: str, name: str) -> str:
    """Hash of the code that a step of this part runs: the part's file and the files its room shares between parts.

    Another part's file is left out on purpose: adding a method must not make the others run again.
    """
    own = _files(kind)[name.replace("-", "_")]
    homes = {own.parent, Path(_package(kind).__path__[0])}
    shared = _hash(sorted(path for home in homes for path in home.glob("_*.py")))
    return _hash([own]) + shared + (room_hash("tune") if ROOMS[kind].startswith("tune.") else "")


@cache
def shared_hash(kind: str) -> str:
    """Hash of the files that a kind's room shares between its parts, for steps of other rooms that run them."""
    return _hash(sorted(Path(_package(kind).__path__[0]).glob("_*.py")))


@cache
def room_hash(room: str) -> str:
    """Hash of the files that lie directly in a room of the package."""
    return _hash(sorted(Path(__file__).parent.joinpath(room).glob("*.py")))


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
