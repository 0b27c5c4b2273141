"""A small real engine for the tests of measuring: each token votes for labels; logits are the mean of the votes.

`weights.safetensors` holds `votes_VC` [vocabulary, C]. Config of the folder (`behavior.json`) can make it die, answer NaN
or take its time, as real engines do.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TASKS = ("text_classification",)


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def available() -> str | None:
    return None


def load(folder: Path, threads: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    from safetensors.numpy import load_file

    votes_VC = load_file(folder / "weights.safetensors")["votes_VC"]
    behavior = json.loads((folder / "behavior.json").read_text())
    ballast = np.ones(int(behavior.get("ballast_mb", 0) * 1e6 / 8))

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        if behavior.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(behavior.get("row_ms", 0) * len(inputs["input_ids"]) / 1e3)
        mask_BT = inputs["attention_mask"][..., None].astype(np.float32)
        logits_BC = (votes_VC[inputs["input_ids"]] * mask_BT).sum(1) / mask_BT.sum(1)
        return logits_BC * (np.nan if behavior.get("nan") else 1.0) + 0 * ballast[:1].sum()

    return run
