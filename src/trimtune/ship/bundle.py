"""A bundle: a folder that answers as what was measured, and says so with figures and hashes.

    manifest.json     what it is, its readings, the parity gate's figures, and the sha256 of every file, itself included
    README.md         the model card
    model/            the engine's files and the tokenizer: all that predicting needs
    adapter/          PEFT's own format, where the method has one: for plain peft and transformers

It is built in a hidden folder beside `out` and renamed when every hop of the gate was passed; nothing is left otherwise. So are
the folders of other formats (`ship/formats.py`), which hold one kind of file alone.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from trimtune import parts
from trimtune.engines import _threads
from trimtune.errors import TrimtuneError
from trimtune.process import Watch, threads
from trimtune.ship import generator
from trimtune.ship.generator import Generator
from trimtune.ship.manifest import MANIFEST, MODEL, check, listing
from trimtune.ship.predictor import Predictor
from trimtune.store import alive
from trimtune.study import language


def ship(run_folder: Path, out: Path, candidate: str | None = None, watch: Watch | None = None,
         format_: str = "bundle") -> dict[str, Any]:
    """Write the bundle of a run's picked candidate, or of the named one, into `out`; its manifest.

    Args:
        format_: `bundle`, or another of `ship/formats.py`; of `peft` and `merged` what is returned is not written.

    Raises:
        TrimtuneError: nothing to ship in this format, or `out` holds something that isn't an untouched bundle.
        ParityFailed: a hop of the gate failed, with its name and figures; nothing was written.
    """
    from trimtune.ship import formats
    from trimtune.ship.source import open_run, read_result

    watch = watch or (lambda event: None)
    replaces = _may_write(out)
    result = read_result(run_folder)
    build, row = formats.chosen(format_, result, candidate)
    source = open_run(run_folder, result, row)
    out.parent.mkdir(parents=True, exist_ok=True)
    _sweep(out)
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


def _sweep(out: Path) -> None:
    """Remove what killed processes left beside `out`; a bundle that one of them had moved aside comes back."""
    for folder in out.parent.glob(".*"):
        left = re.fullmatch(rf"\.{re.escape(out.name)}\.(\d+)\.(new|old)(\..*)?", folder.name)
        if left and folder.is_dir() and not alive(int(left[1])):
            if left[2] == "old" and not out.exists():
                folder.rename(out)
            else:
                shutil.rmtree(folder, ignore_errors=True)


def load(folder: str | Path, n_threads: int | None = None) -> Predictor | Generator:
    """The predictor of a bundle, of a language model its generator, after every file's hash was compared.

    Args:
        folder: where the bundle lies; it may have been moved.
        n_threads: threads to answer with; by default what was measured, or all cores where there are fewer.

    Raises:
        TrimtuneError: no bundle, a changed, missing or added file (named), an engine that isn't installed here, or prompts
            that would be rendered differently than in training.
    """
    folder = Path(folder).expanduser()
    manifest = check(folder)
    engine, task = _engine(folder, manifest), parts.load("task", manifest["task"], str(folder))
    count = n_threads or _threads.used(folder / MODEL, threads())
    with _hushed():
        if task.rows is language:
            return generator.of_bundle(folder, manifest, engine, count)
        tokenizer = task.load_tokenizer(folder / MODEL)
        run = engine.load(folder / MODEL, count)
    return Predictor(run, partial(task.encode, tokenizer, max_length=manifest["max_length"]), manifest)


def language_model(folder: Path) -> Generator:
    """The language model of a bundle, or of a folder that a fit or an engine wrote.

    Raises:
        TrimtuneError: as `load`; or the folder holds none.
    """
    folder = folder.expanduser()
    if not (folder / MANIFEST).is_file():
        with _hushed():
            return generator.load(folder)
    found = load(folder)
    if not isinstance(found, Generator):
        raise TrimtuneError(f"{folder} is a bundle of {found.manifest['task']}: it answers with labels.",
                            "Allowed here: a language model.", f'Ask it with: trimtune predict {folder} "a text"')
    return found


def _engine(folder: Path, manifest: dict[str, Any]) -> ModuleType:
    name = manifest["engine"]["name"]
    engine = parts.load("engine", name, str(folder))
    reason = engine.available()
    if reason:
        raise TrimtuneError(f"The bundle {folder} needs the engine '{name}', which isn't available here: {reason}.",
                            "A bundle runs on the engine that it was measured on.", "Install it, or ship another candidate.")
    return engine


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
