"""A trim that makes several fits, one after another: killed at any moment, it goes on in the fit that it was in.

Each fit has checkpoints of its own. When it is done its model is kept in one file, its hash in its name, in the place of those;
a damaged file counts as none. All of it goes when the step is complete.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.process import emit, peak_memory_mb
from trimtune.store import kept, sha256
from trimtune.tune.checkpoint import Checkpoints

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Begun:
    """What the finished stages left: their facts, the model's tensors, and the seconds and MB of processes that were killed."""

    facts: list[dict[str, Any]] = field(default_factory=list)
    state: Mapping[str, torch.Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    peak_mb: float = 0.0


def newest(folder: Path) -> Begun:
    """What an earlier process finished of the step that is being made in `folder`."""
    from safetensors import safe_open

    place = kept(folder)
    for path in sorted(place.glob("done-*.safetensors"), reverse=True) if place else ():
        if sha256(path) == path.stem.split("-")[2]:
            with safe_open(path, "pt") as file:
                told, state = json.loads(file.metadata()["trim"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            emit("resumed", text=f"resumed after stage {len(told['facts'])}", seconds=told["seconds"],
                 peak_memory_mb=told["peak_mb"])
            return Begun(told["facts"], state, told["seconds"], told["peak_mb"])
    return Begun()


def checkpoints(folder: Path, stage: int, begun: Begun, started: float) -> Checkpoints | None:
    """Those of a stage's fit, which count the seconds since `started` (of time.monotonic) in; None outside a store."""
    place = kept(folder)
    if place is None:
        return None
    found = Checkpoints(_of_stage(place, stage))
    found.spent_seconds, found.peak_mb = begun.seconds + time.monotonic() - started, begun.peak_mb
    return found


def finished(folder: Path, begun: Begun, started: float, facts: list[dict[str, Any]],
             state: Mapping[str, torch.Tensor]) -> Begun:
    """What begins the next stage, kept if that can be: without it, a stop would only make the stage again."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    place, stage = kept(folder), len(facts) - 1
    if place:
        fresh = place / "fresh"
        told = {"facts": facts, "seconds": begun.seconds + time.monotonic() - started,
                "peak_mb": max(begun.peak_mb, peak_memory_mb())}
        with contextlib.suppress(OSError, SafetensorError):
            place.mkdir(parents=True, exist_ok=True)
            save_file({name: value.clone().contiguous() for name, value in state.items()}, fresh, {"trim": json.dumps(told)})
            fresh.rename(place / f"done-{stage:03d}-{sha256(fresh)}.safetensors")
            for path in sorted(place.glob("done-*.safetensors"))[:-1]:
                path.unlink()
            shutil.rmtree(_of_stage(place, stage), ignore_errors=True)
    return Begun([*facts], state, begun.seconds, begun.peak_mb)


def _of_stage(place: Path, stage: int) -> Path:
    return place / f"stage-{stage:03d}"
