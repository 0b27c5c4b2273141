"""The store: one folder per finished step, named by the key of what made it. It is the only cache and the only resume.

A step writes into a temporary folder that is renamed when complete, so a crash at any instant leaves only whole
artifacts. A key is the sha256 of everything that decides the outcome: step, part, its source, config, parents, seed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trimtune.errors import StepFailed, TrimtuneError
from trimtune.process import Event, Watch, Worker, cause_of
from trimtune.records import Artifact
from trimtune.results import Step

_RECORD = "artifact.json"
_FORGOTTEN_SECONDS = 30 * 86400


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_of(**recipe: Any) -> str:
    """sha256 of a recipe as canonical JSON."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def link_tree(source: Path, target: Path, skip: tuple[str, ...] = (_RECORD,)) -> None:
    """Make `target` hold the files of `source` as hard links (copies where the file system has none).

    Artifacts are never changed once complete, so sharing the bytes is safe; write a new file instead of editing one.
    """
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_file() and name.parts[0] not in skip:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).unlink(missing_ok=True)
            try:
                os.link(path.resolve(), target / name)
            except OSError:
                shutil.copy2(path, target / name)


def write_new(path: Path, text: str) -> None:
    """Write a file where a hard link may lie: writing through the link would change it in every folder that shares it."""
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")


def kept(folder: Path) -> Path | None:
    """Where a step that is being made in `folder` may leave what its next try goes on from; None outside a store.

    It outlives a kill, a stop and a failure of the step, and is removed when the step is complete.
    """
    place = folder.parent.parent / "checkpoints"
    return place / folder.stem if folder.parent.name == "tmp" and place.is_dir() else None


def show(artifact: Artifact, target: Path) -> None:
    """Make `target` an up-to-date view of an artifact's files, replaced as a whole."""
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    link_tree(artifact.folder, fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


class Store:
    """Content-keyed steps under one folder.

    Args:
        folder: made if absent.
        watch: called with an event at the start and end of each step, and with those that the step emits.
    """

    def __init__(self, folder: Path, watch: Watch | None = None) -> None:
        self.folder, self.watch = folder, watch or (lambda event: None)
        self.steps: list[Step] = []
        self._made: dict[str, Artifact] = {}
        self._failed: dict[str, StepFailed] = {}
        try:
            (folder / "tmp").mkdir(parents=True, exist_ok=True)
            (folder / "logs").mkdir(exist_ok=True)
            (folder / "checkpoints").mkdir(exist_ok=True)
            (folder / "tmp" / f".probe-{os.getpid()}").touch()
            (folder / "tmp" / f".probe-{os.getpid()}").unlink()
            _sweep(folder)
        except OSError as error:
            raise TrimtuneError(f"The run folder's store {folder} can't be written: {error.strerror}.",
                                "It must be a folder that you may write to.", "Choose another with --runs FOLDER.") from None

    def step(self, step: str, part: str, work: Callable[..., dict[str, Any]], arguments: dict[str, Any], *,
             config: dict[str, Any] | None = None, parents: tuple[Artifact, ...] = (), seed: int = 0, code: str = "",
             fresh: bool = True, spent: tuple[float, float, float] = (0.0, 0.0, 0.0), about: str = "") -> Artifact:
        """The artifact of this recipe: read from the store if it is there, else made by `work(folder, **arguments)`.

        `work` writes its files into `folder` and returns the artifact's facts (plain JSON). `config` must hold
        everything in `arguments` that decides the outcome and is neither a parent nor the seed. `spent` is what was
        done for it before this call, if anything: seconds, start-up seconds, peak MB. Work that goes on from what an
        earlier process left in `kept(folder)` emits "resumed" with the seconds and peak MB that led there; they count too.
        `about` tells the watcher which of several steps of this part it is.

        Raises:
            StepFailed: `work` failed; the failure stands in the ledger and the next run tries again.
        """
        recipe, key, home = self._place(step, part, config, parents, seed, code)
        if key in self._failed:
            raise self._failed[key]
        if key in self._made:
            return self._made[key]
        found = self._read(home)
        if found:
            self._note(found, about)
            return found
        self.watch({"kind": "step", "state": "start", "step": step, "part": part, "about": about})
        started = time.perf_counter()
        folder = self.folder / "tmp" / f"{home.name}.{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True)
            facts, start_seconds, peak, earlier = self._work(work, folder, arguments, home.name, fresh)
            artifact = Artifact(key=key, **recipe, files=_hashes(folder), facts=facts, start_seconds=start_seconds + spent[1],
                                seconds=time.perf_counter() - started + spent[0] + earlier, environment=_environment(),
                                peak_memory_mb=max(peak, spent[2]), folder=home)
            _commit(folder, home, artifact)
            shutil.rmtree(self.folder / "checkpoints" / home.name, ignore_errors=True)
        except (StepFailed, OSError) as error:
            self._note_failure(step, part, about, key, time.perf_counter() - started, cause_of(error))
            self._failed[key] = error if isinstance(error, StepFailed) else StepFailed(cause_of(error))
            raise self._failed[key] from None
        except KeyboardInterrupt:
            if any(self.folder.glob(f"checkpoints/{home.name}/*-*")):
                self.watch({"kind": "note", "text": f"{step} {part}: stopped on its way, kept up to its last checkpoint"})
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._note(artifact, about)
        return artifact

    def get(self, step: str, part: str, *, config: dict[str, Any] | None = None, parents: tuple[Artifact, ...] = (),
            seed: int = 0, code: str = "") -> Artifact | None:
        """The artifact that `step` would reuse for this recipe, verified, or None; nothing is noted in the ledger."""
        return self._read(self._place(step, part, config, parents, seed, code)[2])

    def rests(self, step: str, part: str, *, config: dict[str, Any], parents: tuple[Artifact, ...], seed: int, code: str) -> Path:
        """Where the `step` of this recipe keeps what it goes on from, for another that makes its beginning."""
        return self.folder / "checkpoints" / self._place(step, part, config, parents, seed, code)[2].name

    def drop(self, artifact: Artifact) -> None:
        """Forget an artifact that nothing was made from, so that the next `step` of its recipe makes it anew."""
        self._remove(artifact.folder)
        self._made.pop(artifact.key, None)

    def seen(self, key: str) -> Artifact | None:
        """The artifact with this key, if this run has made or read it."""
        return self._made.get(key)

    def find(self, key: str) -> Artifact | None:
        """The artifact with this key, verified, if the store has it."""
        homes = [path for path in self.folder.glob(f"*-{key[:16]}") if path.is_dir()] if key else []
        return self._read(homes[0]) if homes else None

    def stage(self, text: str) -> None:
        """Tell the watcher what the run turns to."""
        self.watch({"kind": "stage", "text": text})

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the run's lock, so that two runs of one study can't write over each other."""
        with (self.folder / f"{name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise TrimtuneError(f"The study '{name}' is being run by another process.", "One run at a time.",
                                    "Wait for it, or give this study another name.") from None
            yield

    def _place(self, step: str, part: str, config: dict[str, Any] | None, parents: tuple[Artifact, ...], seed: int,
               code: str) -> tuple[dict[str, Any], str, Path]:
        recipe = dict(step=step, part=part, config=config or {}, parents=[parent.key for parent in parents], seed=seed)
        key = key_of(**recipe, code=code)
        return recipe, key, self.folder / f"{step}-{part.replace('/', '-')}-{key[:16]}"

    def _work(self, work: Callable[..., dict[str, Any]], folder: Path, arguments: dict[str, Any], name: str,
              fresh: bool) -> tuple[dict[str, Any], float, float, float]:
        """Facts, start-up seconds, peak MB, and the seconds of earlier processes that this one went on from."""
        if not fresh:
            return work(folder, **arguments), 0.0, 0.0, 0.0
        log = self.folder / "logs" / f"{name}.log"
        log.unlink(missing_ok=True)
        earlier = {"seconds": 0.0, "peak_memory_mb": 0.0}

        def listen(event: Event) -> None:
            if event["kind"] == "resumed":
                earlier.update({name: event[name] for name in earlier})
            self.watch(event)

        with Worker(log) as worker:
            facts = worker.call(work, folder, **arguments, watch=listen)
            return facts, worker.start_seconds, max(worker.peak_memory_mb(), earlier["peak_memory_mb"]), earlier["seconds"]

    def _read(self, home: Path) -> Artifact | None:
        if not (home / _RECORD).exists():
            return None
        with contextlib.suppress(ValidationError):  # a damaged record is a damaged artifact
            artifact = Artifact.model_validate_json((home / _RECORD).read_bytes())
            if all((home / name).is_file() and sha256(home / name) == digest for name, digest in artifact.files.items()):
                return artifact.model_copy(update={"folder": home, "reused": True})
        self.watch({"kind": "warning", "text": f"{home.name}: its files are not what was stored; it is made again"})
        self._remove(home)
        return None

    def _remove(self, home: Path) -> None:
        """Out of the way in one move, so that a crash on the way leaves no half artifact behind."""
        aside = self.folder / "tmp" / f"{home.name}.removed.{os.getpid()}"
        home.rename(aside)
        shutil.rmtree(aside)

    def _note(self, artifact: Artifact, about: str) -> None:
        self._made[artifact.key] = artifact
        self.steps.append(Step(**{name: getattr(artifact, name) for name in Step.model_fields if name != "cause"}))
        self.watch({"kind": "step", "state": "reused" if artifact.reused else "done", "step": artifact.step,
                    "part": artifact.part, "about": about, "seconds": artifact.seconds, "start_seconds": artifact.start_seconds})

    def _note_failure(self, step: str, part: str, about: str, key: str, seconds: float, cause: str) -> None:
        self.steps.append(Step(step=step, part=part, key=key, seconds=seconds, start_seconds=0, peak_memory_mb=0,
                               reused=False, cause=cause))
        self.watch({"kind": "step", "state": "failed", "step": step, "part": part, "about": about, "cause": cause})


def _commit(folder: Path, home: Path, artifact: Artifact) -> None:
    with (folder / _RECORD).open("w") as file:
        file.write(artifact.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    if (home / _RECORD).exists():  # another run made the same step meanwhile: the same recipe, so either will do
        return
    shutil.rmtree(home, ignore_errors=True)
    folder.rename(home)


def _sweep(store: Path) -> None:
    """Remove what killed runs left: half artifacts (the last part of each name is the process that was writing it), and
    checkpoints of steps that are complete or that nobody has gone on with for a month."""
    for path in (store / "tmp").iterdir():
        pid = path.suffix.removeprefix(".")
        if path.is_dir() and pid.isdigit() and not alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
    for path in (store / "checkpoints").iterdir():
        with contextlib.suppress(FileNotFoundError):  # its step is complete, in another run
            if (store / path.name / _RECORD).exists() or time.time() - path.stat().st_mtime > _FORGOTTEN_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@cache
def _environment() -> dict[str, str]:
    names = ("trimtune", "torch", "transformers", "peft")
    found = {name: version(name) for name in names}
    return {"python": platform.python_version(), "system": platform.platform(), **found}
