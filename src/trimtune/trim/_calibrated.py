"""What a calibrated trim leaves beside the model: which training rows the engine looks at, and how it reads ranges off them.

An engine that realizes such a trim has what this needs: the graph that it quantizes, and the training texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtune.errors import TrimtuneError
from trimtune.store import write_new

FILE = "calibration.json"


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    calibration: Literal["minmax", "percentile", "entropy", "mse"] = Field(
        "mse", description="what an activation's range is: all that was seen, a percentile of it, or what keeps its distribution "
                           "(entropy) or its values (mse) best")
    rows: int = Field(300, ge=1, description="training rows that are looked at, evenly spaced; more than there are: all")
    percentile: float = Field(99.99, gt=50, le=100, description="of the values' sizes, kept inside the range by `percentile`; "
                                                                "the others don't use it")


def leave(folder: Path, settings: Config) -> None:
    """Put the settings beside the model, in the place of those of a trim before."""
    write_new(folder / FILE, settings.model_dump_json(indent=1) + "\n")


def read(folder: Path) -> Config:
    """The settings of a model folder.

    Raises:
        TrimtuneError: there are none; the trim was not run on it.
    """
    if not (folder / FILE).is_file():
        raise TrimtuneError(f"{folder} has no {FILE}, which says how its activations are calibrated.",
                            "The trims int8_static and fp8 leave it.", "Run the trim first.")
    return Config.model_validate_json((folder / FILE).read_text(encoding="utf-8"))


def chosen(texts: Sequence[str], settings: Config) -> list[str]:
    """The rows to look at.

    Raises:
        TrimtuneError: there are no training rows.
    """
    if not texts:
        raise TrimtuneError("int8_static or fp8 was asked for without training rows.",
                            "The activations' ranges are read off them.", "Give the rows, or use int8 on onnx_runtime.")
    return spaced(texts, settings.rows)


def spaced(texts: Sequence[str], count: int) -> list[str]:
    """So many of them, or all, evenly spaced, since a file may be sorted by label."""
    count = min(count, len(texts))
    return [texts[at * len(texts) // count] for at in range(count)]
