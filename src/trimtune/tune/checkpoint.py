"""Checkpoints of a fit: killed at any moment, it goes on and ends, bit for bit, as if nothing had been (shown on CPUs).

One file holds all that the rest of the fit follows from: masters, AdamW's moments and counts, the best epoch so far, the
curve, the model's buffers and the state of every generator (python, numpy, torch). Where in the data it stands follows
from the step count. Tensors are safetensors, the rest is JSON in their header; the file's name holds the sha256 of its
bytes, so that a damaged one is seen and the one before it is taken. The last two are kept until the step is complete.

The next one waits 40 times as long as the last one took to write, and 10 s at least; TRIMTUNE_CHECKPOINT_SECONDS sets a
fixed distance instead. A step of the store holds one fit at most.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.process import cause_of, emit, peak_memory_mb
from trimtune.store import kept, sha256
from trimtune.tune import device
from trimtune.tune.parallel import ALONE, Team, like, whole

if TYPE_CHECKING:
    import torch

    from trimtune.tune.loop import Fitted
    from trimtune.tune.optimizer import Masters

DISTANCE, LEAST_SECONDS = 40, 10.0
"""from one checkpoint to the next: times the cost of the last, and at least so many seconds"""
_BYTES_PER_SECOND = 2e8
"""written, synced and hashed, as long as nothing has been measured"""
_LOCK_SECONDS = 5.0
"""what a process that was killed a moment ago may take to be gone"""


def of(folder: Path, team: Team = ALONE, place: Path | None = None) -> Checkpoints | None:
    """The checkpoints in `place`, or else of the step that is being made in `folder`; None outside a store."""
    place = place or kept(folder)
    return Checkpoints(place, team=team) if place else None


class Checkpoints:
    """The checkpoints in one folder, for one process at a time. Where they can't be written, it says so once and does without.

    Args:
        every: seconds from one to the next; None adapts them to the cost.
        team: the processes of the fit. The first one has the folder and decides; all must make every call.
    """

    def __init__(self, folder: Path, every: float | None = None, team: Team = ALONE) -> None:
        given = os.environ.get("TRIMTUNE_CHECKPOINT_SECONDS")
        self.folder, self.every = folder, float(given) if every is None and given else every
        self.on, self.due, self.team = team.rank == 0, 0.0, team
        self.started, self.spent_seconds, self.peak_mb = time.monotonic(), 0.0, 0.0
        if not self.on:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("w")
            _hold(self._lock.fileno())
        except OSError as error:
            self._do_without(error)

    def restore(self, model: torch.nn.Module, masters: Masters, fitted: Fitted) -> None:
        """Put everything back as the newest whole checkpoint has it; touch nothing if there is none."""
        size = 4 * sum(master.numel() * master.element_size() for master in masters.masters)
        self._wait(size / _BYTES_PER_SECOND)
        state = self.team.of_first(self._newest())
        if state:
            self._put_back(*state, model, masters, fitted)
            where = f"epoch {len(fitted.curve) + 1}, step {masters.step_count} of {masters.steps}"
            print(f"resumed at {where}", flush=True)
            emit("resumed", text=f"resumed at {where}", seconds=self.spent_seconds, peak_memory_mb=self.peak_mb)

    def save_if_due(self, model: torch.nn.Module, masters: Masters, fitted: Fitted) -> None:
        if self.team.of_first(self.on and time.monotonic() >= self.due):
            self.save(model, masters, fitted)

    def save(self, model: torch.nn.Module, masters: Masters, fitted: Fitted) -> None:
        from safetensors import SafetensorError

        if not self.team.of_first(self.on):
            return
        started = time.monotonic()
        try:
            self._save(model, masters, fitted)
        except (OSError, SafetensorError) as error:
            self._do_without(error)
            with contextlib.suppress(OSError):
                (self.folder / "fresh").unlink(missing_ok=True)
            return
        fitted.checkpoint_seconds += time.monotonic() - started
        self._wait(time.monotonic() - started)

    def _save(self, model: torch.nn.Module, masters: Masters, fitted: Fitted) -> None:
        """Write beside, sync, rename: under a checkpoint's name there is a whole file at any instant."""
        from safetensors.torch import save_file

        tensors = {**masters.state(), **{f"best.{index}": value for index, value in enumerate(fitted.best)}, **_buffers(model)}
        tensors = {name: whole(value).cpu() for name, value in tensors.items()}
        for rank, generators in enumerate(self.team.gathered(_torch_generators(device.of(model)))):
            tensors |= {f"generator.{rank}.{name}": state for name, state in generators.items()}
        sums = self.team.gathered(float(fitted.loss_sum))
        if self.team.rank:
            return
        facts = dataclasses.asdict(dataclasses.replace(fitted, best=[], loss_sum=sums))
        told = {"step_count": masters.step_count, "fitted": facts, "python": random.getstate(), "numpy": _numpy_generator(),
                "seconds": self.spent_seconds + time.monotonic() - self.started, "peak_mb": max(self.peak_mb, peak_memory_mb())}
        fresh = self.folder / "fresh"
        save_file({name: value.contiguous() for name, value in tensors.items()}, fresh, metadata={"fit": json.dumps(told)})
        _sync(fresh)
        fresh.rename(self.folder / f"{masters.step_count:09d}.{len(fitted.curve)}-{sha256(fresh)}.safetensors")
        _sync(self.folder)
        for path in self._files()[:-2]:
            path.unlink()

    def _newest(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
        from safetensors import safe_open

        for path in reversed(self._files()):
            if sha256(path) == path.stem.split("-")[1]:
                with safe_open(path, "pt") as file:
                    return json.loads(file.metadata()["fit"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            emit("warning", text=f"the checkpoint of step {int(path.name[:9])} is damaged; the one before it counts")
            path.unlink()
        return None

    def _put_back(self, told: dict[str, Any], tensors: dict[str, torch.Tensor], model: torch.nn.Module, masters: Masters,
                  fitted: Fitted) -> None:
        import torch

        masters.load(tensors, told["step_count"])
        with torch.no_grad():
            for name, buffer in _buffers(model).items():
                buffer.copy_(tensors[name])
        for name, value in told["fitted"].items():
            setattr(fitted, name, value)
        fitted.loss_sum = fitted.loss_sum[self.team.rank]
        fitted.best = [like(tensors[f"best.{index}"], master) for index, master in enumerate(masters.masters) if fitted.curve]
        _set_generators(told, tensors, self.team.rank, device.of(model))
        self.spent_seconds, self.peak_mb = told["seconds"], told["peak_mb"]

    def _files(self) -> list[Path]:
        """Oldest first. None if the folder isn't ours to use."""
        return sorted(self.folder.glob("*-*.safetensors")) if self.on else []

    def _wait(self, cost_seconds: float) -> None:
        distance = max(LEAST_SECONDS, DISTANCE * cost_seconds) if self.every is None else self.every
        self.due = time.monotonic() + distance

    def _do_without(self, error: Exception) -> None:
        self.on = False
        emit("warning", text=f"no checkpoint can be kept ({cause_of(error)}); the fit goes on, but a stop would lose it")


def _hold(lock: int) -> None:
    """Raises OSError if another process has it and keeps it."""
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _buffers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a model carries along beside its parameters, such as running means."""
    kept_names = model.state_dict().keys()
    return {f"buffer.{name}": buffer for name, buffer in model.named_buffers() if name in kept_names}


def _torch_generators(place: torch.device) -> dict[str, torch.Tensor]:
    """The states of the CPU's generator and of the device's own, by kind."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    if place.type != "cpu":
        states[place.type] = torch.get_device_module(place).get_rng_state()
    return states


def _numpy_generator() -> list[Any]:
    import numpy

    name, keys, *rest = numpy.random.get_state(legacy=True)  # noqa: NPY002 - the generator that libraries draw from
    return [name, [int(key) for key in keys], *rest]


def _set_generators(told: dict[str, Any], tensors: dict[str, torch.Tensor], rank: int, place: torch.device) -> None:
    import numpy
    import torch

    version, keys, gauss = told["python"]
    random.setstate((version, tuple(keys), gauss))
    numpy.random.set_state(tuple(told["numpy"]))  # noqa: NPY002
    torch.set_rng_state(tensors[f"generator.{rank}.cpu"])
    own = tensors.get(f"generator.{rank}.{place.type}")
    if place.type != "cpu" and own is not None:
        torch.get_device_module(place).set_rng_state(own)
