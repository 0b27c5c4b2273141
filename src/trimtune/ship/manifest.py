"""The manifest of a bundle: every file's sha256, its own included, compared before anything is loaded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from trimtune.errors import TrimtuneError
from trimtune.store import sha256

FORMAT = 1
MANIFEST, CARD, MODEL, ADAPTER = "manifest.json", "README.md", "model", "adapter"
_NO_HASH = "0" * 64


def check(folder: Path) -> dict[str, Any]:
    """The manifest of an intact bundle. Hidden files (.git, .DS_Store) are let be; any other addition is refused.

    Raises:
        TrimtuneError: naming the file that is missing, changed or added.
    """
    manifest = read_manifest(folder)
    for name, digest in manifest["files"].items():
        if not (folder / name).is_file():
            raise _broken(folder, f"{name} is missing")
        if sha256(folder / name) != digest:
            raise _broken(folder, f"{name} was changed: its sha256 isn't the manifest's")
    added = sorted(set(listing(folder, hidden=False)) - set(manifest["files"]) - {MANIFEST})
    if added:
        raise _broken(folder, f"{added[0]} was added" + (f", and {len(added) - 1} more" if len(added) > 1 else ""))
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest alone, its own hash compared."""
    path = folder / MANIFEST
    if not path.is_file():
        what = f"{folder} is no bundle: it has no {MANIFEST}." if folder.is_dir() else f"There is no bundle {folder}."
        raise TrimtuneError(what, "A bundle is a folder that `trimtune ship` wrote.",
                            "Make one: trimtune ship runs/NAME -o bundle/")
    content = path.read_bytes()
    try:
        manifest = json.loads(content)
        own = manifest["sha256"]
        known = manifest["format"]
    except (ValueError, KeyError, TypeError):
        raise _broken(folder, f"{MANIFEST} was changed: it is no manifest of trimtune any more") from None
    if not isinstance(own, str) or hashlib.sha256(content.replace(own.encode(), _NO_HASH.encode())).hexdigest() != own:
        raise _broken(folder, f"{MANIFEST} was changed: its sha256 isn't the one that it carries")
    if known != FORMAT:
        raise TrimtuneError(f"The bundle {folder} has format {known}.", f"This trimtune reads format {FORMAT}.",
                            f"Use the trimtune that it was made by: {manifest.get('trimtune')}.")
    found: dict[str, Any] = manifest
    return found


def write_manifest(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write `manifest` with the hash of every file in `folder` and of its own text; what was written."""
    files = {name: sha256(folder / name) for name in listing(folder, hidden=True) if name != MANIFEST}
    text = json.dumps({**manifest, "files": files, "sha256": _NO_HASH}, indent=1, ensure_ascii=False, allow_nan=False)
    own = hashlib.sha256(text.encode()).hexdigest()
    (folder / MANIFEST).write_bytes(text.replace(_NO_HASH, own).encode())
    return {**manifest, "files": files, "sha256": own}


def listing(folder: Path, hidden: bool) -> list[str]:
    """Relative paths of the files below `folder`, with forward slashes."""
    names = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if not path.is_dir())
    return [name.as_posix() for name in names if hidden or not any(part.startswith(".") for part in name.parts)]


def _broken(folder: Path, what: str) -> TrimtuneError:
    return TrimtuneError(f"The bundle {folder} isn't what was shipped: {what}.",
                         "Every file must be as its manifest says: what predicts is what was measured.",
                         "Copy the bundle again from where it came from, or ship it anew: trimtune ship runs/NAME -o bundle/")
