"""Memory that loading and running a candidate adds to a process: at its highest, and what is its own at rest.

When to use: peak_memory_mb to know what the server must have free, private_memory_mb for what each further process of the same
candidate costs. Protocol: each candidate has its own fresh process. Python, the tokenizer and the rows are there before, so they
don't count; the system's peak counter is reset then (VmHWM through /proc/self/clear_refs on Linux; elsewhere the process's peak
so far is subtracted), the engine is loaded, 32 rows and one row are answered (of a language model 8 prompts, by 32 tokens each,
and one), and the growth of resident memory at its peak is reported, in MB (10^6 bytes). The engine's own library counts, since it
must be in memory too; files mapped into memory count as far as they were read.

Private memory is the growth of what no file backs (Anonymous in /proc/self/smaps_rollup) after these answers. Pages of mapped
files don't count: all processes that map the file share them, and the system may drop them. Its fields Private_Clean and
Private_Dirty don't serve: they hold such a page or not, as another candidate has the same file mapped at that moment, or as the
file was written lately. Refused where the system doesn't tell it (Linux before 4.14, macOS).
"""

from __future__ import annotations

import gc
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from trimtune.measure import _machine
from trimtune.measure._candidate import Subject
from trimtune.records import Quantity, Reading

TASKS = ("causal_lm", "text_classification")
READINGS = {
    "peak_memory_mb": Quantity("MB", "lower", "Peak memory",
                               "The most memory that loading the model and answering added to the process."),
    "private_memory_mb": Quantity("MB", "lower", "Private memory",
                                  "Memory that it has written and shares with no other process, after answering.")}
ROUNDS = 1
FIRST = True
"""nothing else may have raised the peak before it"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    batch_size: int = Field(0, ge=0, description="rows answered together; 0: 32, or 8 prompts")
    seed: int = Field(1, description="order in which rows are drawn")


def sample(subject: Subject, config: Config) -> dict[str, Any]:
    """Resident memory before the engine was loaded and at the peak, private memory before and at rest, in MB."""
    subject.work(config.batch_size or subject.together, config.seed)
    subject.work(1, config.seed)
    peak = _machine.peak_mb()
    gc.collect()
    return {"before_mb": subject.loaded.before_mb, "peak_mb": peak, "peak_resets": subject.loaded.peak_resets,
            "before_private_mb": subject.loaded.before_private_mb, "private_mb": _machine.private_mb()}


def summarize(samples: list[dict[str, Any]], config: Config) -> dict[str, Reading]:
    """The growth, in MB."""
    taken = samples[0]
    before, rest = taken["before_private_mb"], taken["private_mb"]
    return {"peak_memory_mb": _reading("peak_memory_mb", taken["peak_mb"] - taken["before_mb"], "" if taken["peak_resets"] else
                                       "the system can't reset its peak counter: growth over the process's earlier peak"),
            "private_memory_mb": _reading("private_memory_mb", None, "the system doesn't tell which memory is a process's own")
            if before is None or rest is None else _reading("private_memory_mb", rest - before)}


def _reading(name: str, growth: float | None, note: str = "") -> Reading:
    unit, better, *_ = READINGS[name]
    return Reading(name=name, value=None if growth is None else max(0.0, growth), unit=unit, better=better, n=1, note=note)
