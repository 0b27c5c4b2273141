"""Memory that loading and running a candidate adds to a process, at its highest.

When to use: to know what the server must have free. Protocol: each candidate has its own fresh process. Python, the
tokenizer and the rows are there before, so they don't count; the system's peak counter is reset then (VmHWM through
/proc/self/clear_refs on Linux; elsewhere the process's peak so far is subtracted), the engine is loaded, 32 rows and
one row are answered (of a language model 8 prompts, by 32 tokens each, and one), and the growth of resident memory at its
peak is reported, in MB (10^6 bytes). The engine's own library counts, since it must be in memory too; files mapped into
memory count as far as they were read.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from trimtune.measure import _machine
from trimtune.measure._candidate import Subject
from trimtune.records import Better, Reading

TASKS = ("causal_lm", "text_classification")
READINGS: dict[str, tuple[str, Better]] = {"peak_memory_mb": ("MB", "lower")}
ROUNDS = 1
FIRST = True
"""nothing else may have raised the peak before it"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    batch_size: int = Field(0, ge=0, description="rows answered together; 0: 32, or 8 prompts")
    seed: int = Field(1, description="order in which rows are drawn")


def sample(subject: Subject, config: Config) -> dict[str, Any]:
    """Resident memory before the engine was loaded and at the peak, in MB."""
    subject.work(config.batch_size or subject.together, config.seed)
    subject.work(1, config.seed)
    return {"before_mb": subject.loaded.before_mb, "peak_mb": _machine.peak_mb(), "peak_resets": subject.loaded.peak_resets}


def summarize(samples: list[dict[str, Any]], config: Config) -> dict[str, Reading]:
    """The growth, in MB."""
    unit, better = READINGS["peak_memory_mb"]
    taken = samples[0]
    note = "" if taken["peak_resets"] else "the system can't reset its peak counter: growth over the process's earlier peak"
    return {"peak_memory_mb": Reading(name="peak_memory_mb", value=max(0.0, taken["peak_mb"] - taken["before_mb"]), unit=unit,
                                      better=better, n=1, note=note)}
