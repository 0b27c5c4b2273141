"""The one recovery fit of a trim, by settings that trims name alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trimtune import parts
from trimtune.tune.recovery import Setting, recover

if TYPE_CHECKING:
    import torch


class Wanted(Protocol):
    """Of a trim's config: passes over the rows, 0 for no fit; the highest learning rate; the parent's share of the loss."""

    @property
    def epochs(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def teacher(self) -> float: ...


def recovered(module: torch.nn.Module, source: Path, folder: Path, wanted: Wanted, setting: Setting) -> dict[str, Any]:
    """Fit the trimmed module in place, its parent in `source` as the teacher; the fit's facts, or nothing without one."""
    if not wanted.epochs:
        return {}
    teacher = parts.load("task", setting.task).load_model(source) if wanted.teacher else None
    return recover(module, source, setting, wanted.learning_rate, wanted.epochs, folder=folder, teacher=teacher,
                   share=wanted.teacher)
