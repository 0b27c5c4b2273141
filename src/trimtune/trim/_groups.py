"""How many weights of int4 share a scale, where a study says it: left beside the model for the engine that realizes the trim."""

from __future__ import annotations

import json
from pathlib import Path

from trimtune.store import write_new

_FILE = "int4.json"


def leave(folder: Path, group: int | None) -> None:
    """Say it in a model folder; None leaves it to the engine, whatever a trim before had said."""
    if group is None:
        (folder / _FILE).unlink(missing_ok=True)
    else:
        write_new(folder / _FILE, json.dumps({"group": group}) + "\n")


def asked(folder: Path, usual: int) -> int:
    """What a model folder says, or the engine's `usual` one."""
    path = folder / _FILE
    return int(json.loads(path.read_text(encoding="utf-8"))["group"]) if path.is_file() else usual
