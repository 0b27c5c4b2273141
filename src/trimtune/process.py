"""Fresh processes that start in a fraction of a second, for every step that trains, trims, exports or measures.

A fork server imports torch, transformers and peft once and starts no thread; each step is a fork of it. So a step has
its own peak memory, and its crash or out-of-memory kill is one `StepFailed` with a cause, never the end of the run.
On macOS each step starts Python anew (some seconds): what imports torch has asked for Metal, which a fork can't use.

Inside a step, `emit` sends an event (progress, a score) to whoever started it; outside one it does nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import multiprocessing
import os
import platform
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from trimtune.errors import StepFailed, TrimtuneError

Event = dict[str, Any]
Watch = Callable[[Event], None]

_PRELOAD = ["torch", "transformers", "transformers.models.auto.modeling_auto", "transformers.models.bert.modeling_bert",
            "peft", "safetensors.torch", "trimtune.process"]
_QUIET = {"OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1",
          "TRANSFORMERS_VERBOSITY": "error", "TORCH_CPP_LOG_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
_START = "spawn" if sys.platform == "darwin" else "forkserver"
_NO_MEMORY = ("allocate memory", "out of memory", "bad_alloc", "bad allocation")
"""what torch, its allocators and the kernel call it"""
_up: Connection | None = None


def emit(kind: str, **fields: Any) -> None:
    """Send one event to the process that started this step."""
    if _up is not None:
        _up.send(("event", {"kind": kind, **fields}))


def threads() -> int:
    """Cores that this process may use: its part of them, where torchrun started several on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def warm_up() -> None:
    """Start the fork server, if it isn't running: it imports in the background while the caller goes on."""
    if _START == "forkserver":
        with _quiet_environment(), _stderr_to_null():
            multiprocessing.get_context(_START).set_forkserver_preload(_PRELOAD)
            forkserver.ensure_running()


class Worker:
    """One fresh process that stays until closed. Calls run in it one after another.

    `function` must be importable by name. What `open` returns stays in the process and is the first argument of `ask`.
    """

    def __init__(self, log: Path | None = None) -> None:
        started = time.perf_counter()
        warm_up()
        context: Any = multiprocessing.get_context(_START)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, daemon=True, args=(
            theirs, str(log) if log else None, threads(), os.environ.get("TRIMTUNE_PARTS", "")))
        with _main_hidden(), _quiet_environment():
            self._process.start()
        theirs.close()
        self.log = log
        self._receive(None)
        self.start_seconds = time.perf_counter() - started

    @property
    def pid(self) -> int:
        return int(self._process.pid or 0)

    def call(self, function: Callable[..., Any], *args: Any, watch: Watch | None = None, **kwargs: Any) -> Any:
        """Run `function(*args, **kwargs)` there. Raises StepFailed with the cause if it fails or its process dies."""
        return self._send("call", function, args, kwargs, watch)

    def open(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Run it there and keep what it returns there."""
        self._send("open", function, args, kwargs, None)

    def ask(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run `function(opened, *args, **kwargs)` there."""
        return self._send("ask", function, args, kwargs, None)

    def peak_memory_mb(self) -> float:
        return float(self.call(peak_memory_mb))

    def close(self) -> None:
        self._pipe.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, verb: str, function: Any, args: Any, kwargs: Any, watch: Watch | None) -> Any:
        try:
            self._pipe.send((verb, function, args, kwargs))
        except (BrokenPipeError, ConnectionResetError):
            raise StepFailed(self._death()) from None
        return self._receive(watch)

    def _receive(self, watch: Watch | None) -> Any:
        while True:
            try:
                kind, value = self._pipe.recv()
            except (EOFError, ConnectionResetError):
                raise StepFailed(self._death(), self._log_tail()) from None
            if kind == "value":
                return value
            if kind == "failed":
                raise StepFailed(*value)
            if watch:
                watch(value)

    def _death(self) -> str:
        self._process.join(10)
        code = self._process.exitcode
        if code == -signal.SIGKILL:
            return "its process was killed (signal 9): most likely the machine ran out of memory"
        if code is not None and code < 0:
            return f"its process died of signal {-code} ({signal.Signals(-code).name})"
        return f"its process ended unexpectedly with exit status {code}"

    def _log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log and self.log.exists() else ""


def _serve(pipe: Connection, log: str | None, n_threads: int, parts_folders: str) -> None:
    global _up
    os.environ["TRIMTUNE_PARTS"] = parts_folders  # the fork server may be older than the caller's setting
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it ends its workers itself
    _end_with_parent()
    _redirect(log)
    import torch

    torch.set_num_threads(n_threads)
    _up = pipe
    opened: Any = None
    pipe.send(("value", None))
    while True:
        try:
            verb, function, args, kwargs = pipe.recv()
        except EOFError:
            return
        try:
            if verb == "open":
                opened, value = function(*args, **kwargs), None
            else:
                value = function(*((opened, *args) if verb == "ask" else args), **kwargs)
            pipe.send(("value", value))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported whole to the parent, which records it
            traceback.print_exc()
            pipe.send(("failed", (cause_of(error), traceback.format_exc())))


def cause_of(error: BaseException) -> str:
    """One line that tells a reader of the report why a step failed."""
    text = " ".join(str(error).split())
    if isinstance(error, TrimtuneError | StepFailed):
        return text
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _NO_MEMORY):
        return f"out of memory: {text or 'the allocation failed'}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{os.strerror(error.errno)}: {error.filename or text}"
    return f"{type(error).__name__}: {text}"[:400]


def peak_memory_mb() -> float:
    """This process's largest resident memory so far, in 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, but bytes on macOS
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def memory_mb() -> float:
    """Memory that this process could have, in MB (10^6 bytes): the machine's, or its container's if that is less."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no control groups, or no limit ("max")
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return found / 1e6


def place() -> dict[str, str | int]:
    """What tells timings of one machine from those of another, for the keys of steps that time something."""
    names = ("TRIMTUNE_DEVICE", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    shown = [os.environ.get(name, "-") for name in names]
    gpus = " ".join([*sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*")), *shown])
    return {"processor": platform.processor() or platform.machine(), "node": platform.node(), "threads": threads(),
            "torch": importlib.metadata.version("torch"), "gpus": gpus}


def _end_with_parent() -> None:
    """A killed run must leave no process behind: ask the kernel, and watch the parent where the kernel can't."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; the fork server ends with the run
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def _redirect(log: str | None) -> None:
    target = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep multiprocessing from importing the caller's script again: a script without a main guard works too."""
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update({"__spec__": None, **kept})


@contextlib.contextmanager
def _quiet_environment() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _QUIET}
    os.environ.update(_QUIET)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _stderr_to_null() -> Iterator[None]:
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
