"""A bundle: a folder that answers as what was measured, and says so with figures and hashes.

    manifest.json     what it is, its readings, the parity gate's figures, and the sha256 of every file, itself included
    README.md         the model card
    model/            the engine's files and the tokenizer: all that predicting needs
    adapter/          PEFT's own format, where the method has one: for plain peft and transformers

It is built in a hidden folder beside `out` and renamed when every hop of the gate was passed; nothing is left otherwise.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.process import Watch, threads
from trimtune.ship.predictor import Predictor
from trimtune.store import sha256

FORMAT = 1
MANIFEST, CARD, MODEL, ADAPTER = "manifest.json", "README.md", "model", "adapter"
_NO_HASH = "0" * 64


def ship(run_folder: Path, out: Path, candidate: str | None = None, watch: Watch | None = None) -> dict[str, Any]:
    """Write the bundle of a run's picked candidate, or of the named one, into `out`; its manifest.

    Raises:
        TrimtuneError: nothing to ship, or `out` holds something that isn't an untouched bundle.
        ParityFailed: a hop of the gate failed, with its name and figures; nothing was written.
    """
    from trimtune.ship.build import build
    from trimtune.ship.source import open_run

    watch = watch or (lambda event: None)
    replaces = _may_write(out)
    source = open_run(run_folder, candidate)
    out.parent.mkdir(parents=True, exist_ok=True)
    new, old = (out.parent / f".{out.name}.{os.getpid()}.{word}" for word in ("new", "old"))
    try:
        manifest = build(source, new, watch)
        if replaces:
            out.rename(old)
        elif out.exists():
            out.rmdir()
        new.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)
    return manifest


def load(folder: str | Path, n_threads: int | None = None) -> Predictor:
    """The predictor of a bundle, after every file's hash was compared.

    Args:
        folder: where the bundle lies; it may have been moved.
        n_threads: cores to use; all that the process may use by default.

    Raises:
        TrimtuneError: no bundle, a changed, missing or added file (named), or an engine that isn't installed here.
    """
    folder = Path(folder).expanduser()
    manifest = check(folder)
    name = manifest["engine"]["name"]
    engine, task = parts.load("engine", name, str(folder)), parts.load("task", manifest["task"], str(folder))
    reason = engine.available()
    if reason:
        raise TrimtuneError(f"The bundle {folder} needs the engine '{name}', which isn't available here: {reason}.",
                            "A bundle runs on the engine that it was measured on.", "Install it, or ship another candidate.")
    with _hushed():
        tokenizer = task.load_tokenizer(folder / MODEL)
        run = engine.load(folder / MODEL, n_threads or threads())
    return Predictor(run, partial(task.encode, tokenizer, max_length=manifest["max_length"]), manifest)


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


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep the libraries' remarks about kernels that they could not find off the user's screen; errors stay."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _may_write(out: Path) -> bool:
    """Whether `out` is a bundle that may be replaced; False for an absent or empty folder.

    Raises:
        TrimtuneError: it is anything else: nothing that a user may have put there is ever overwritten.
    """
    allowed, do = "Allowed: a folder that is absent, empty or a bundle.", "Choose another with -o FOLDER."
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise TrimtuneError(f"{out} is {'a link' if out.is_symlink() else 'no folder'}.", allowed, do)
    if not out.is_dir() or not any(out.iterdir()):
        return False
    if not (out / MANIFEST).is_file():
        raise TrimtuneError(f"The folder {out} isn't empty and is no bundle.", allowed, do)
    manifest = check(out)
    own = sorted(set(listing(out, hidden=True)) - set(manifest["files"]) - {MANIFEST})
    if own:
        raise TrimtuneError(f"The bundle {out} holds {own[0]}, which isn't the bundle's own.",
                            "A bundle is replaced only when nothing else lies in it.", f"Move that away. {do}")
    return True


def _broken(folder: Path, what: str) -> TrimtuneError:
    return TrimtuneError(f"The bundle {folder} isn't what was shipped: {what}.",
                         "Every file must be as its manifest says: what predicts is what was measured.",
                         "Copy the bundle again from where it came from, or ship it anew: trimtune ship runs/NAME -o bundle/")
