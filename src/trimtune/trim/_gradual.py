"""Units that go in stages: each cuts the model further and mends it, so that what stays takes over before the next units go.

    r_t = r · (1 − (1 − t / steps)³)      the share that is gone after stage t of `steps`

Many go early, when much is left that can take their part: Zhu & Gupta 2017 (arXiv 1710.01878), section 3. One stage is one cut
and one fit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune import parts
from trimtune.trim import _stages
from trimtune.trim._model_folder import load
from trimtune.tune.recovery import Setting, recover

if TYPE_CHECKING:
    import torch

    Cut = Callable[[torch.nn.Module, float], dict[str, Any]]
    Like = Callable[[torch.nn.Module, dict[str, Any]], None]


def gradually(source: Path, folder: Path, setting: Setting, cut: Cut, like: Like, *, ratio: float, steps: int,
              learning_rate: float, epochs: int, share: float) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The model of `source` without `ratio` of its units, fitted again after each stage.

    Args:
        folder: the one that the trim is being made in: killed, it goes on in the stage that it was in.
        cut: removes a share of the units that are left, in place; its facts say `before` and `after`, counts of units, and
            `importance_kept`.
        like: cuts a model of `source` to the shapes that the facts of a stage tell, whichever units they are.
        epochs: of each stage's fit; 0 leaves it out.
        share: of the fits' loss that the parent's answers give.

    Returns:
        the module, and facts: `stages`, those of each cut with its `recovery`; `importance_kept`, the product of theirs; the last
        `recovery`.
    """
    started, begun, task = time.monotonic(), _stages.newest(folder), parts.load("task", setting.task)
    teacher = task.load_model(source) if share and epochs else None
    while True:
        stage, left = len(begun.facts), math.prod(one["after"] / one["before"] for one in begun.facts)
        module = load(source, task, attention="eager")
        if begun.facts:
            like(module, begun.facts[-1])
            module.load_state_dict(begun.state)
        facts, recovery = cut(module, 1 - (1 - share_after(stage + 1, steps, ratio)) / left), {}
        if epochs:
            keep = _stages.checkpoints(folder, stage, begun, started)
            recovery = recover(module, source, setting, learning_rate, epochs, teacher=teacher, share=share, keep=keep)
        stages = [*begun.facts, {**facts, "recovery": recovery}]
        if stage + 1 == steps:
            kept = math.prod(one["importance_kept"] for one in stages)
            return module, {"stages": stages, "importance_kept": round(kept, 4), "recovery": recovery}
        begun = _stages.finished(folder, begun, started, stages, module.state_dict())


def share_after(stage: int, stages: int, whole: float) -> float:
    """The share that is gone after a stage (from 1): many go early, when all that stays can still take their part."""
    return whole * (1 - (1 - stage / stages) ** 3)
