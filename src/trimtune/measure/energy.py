"""Energy that a row takes while rows are answered, in mJ: what the machine's own counters say, and nothing where they don't.

When to use: where the power bill, a battery or the heat decides. Not to compare machines by their idle power: the counters are
those of whole processors (RAPL: packages and their memory) and whole GPUs (NVML), whoever uses them, idle included. Protocol:
candidates take turns, six rounds; in a round every candidate gets the same batch of test rows, 32 of them (of a language model 8
prompts, each answered by 32 tokens, which then counts as a row), once as warm-up and then again until `seconds` are spent.

    energy_mj_per_row = Σ_counters (counter at the end − at the beginning) / rows answered,  the median of the rounds

A counter that began anew meanwhile is carried on. The interval is that of the median, from order statistics. Refused, never
estimated, where no counter can be read: Linux shows RAPL to root alone unless /sys/class/powercap is opened. `energy` among the
machine's facts names what is counted.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from trimtune.measure import _energy
from trimtune.measure._candidate import Subject
from trimtune.measure._intervals import median_range
from trimtune.measure._timing import quiet
from trimtune.records import Quantity, Reading

TASKS = ("causal_lm", "text_classification")
READINGS = {
    "energy_mj_per_row": Quantity("mJ", "lower", "Energy per row",
        "What the machine's counters of energy say while rows are answered, per row; idle is counted in.")}
ROUNDS = 6


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    batch_size: int = Field(0, ge=0, description="rows answered together; 0: 32, or 8 prompts")
    seconds: float = Field(0.5, gt=0, description="a turn repeats its batch until this is spent; counters step by milliseconds")
    settle_seconds: float = Field(0.04, ge=0, description="pause before a turn: ONNX Runtime's threads spin 35 ms after a call")
    seed: int = Field(1, description="order in which rows are drawn")


def sample(subject: Subject, config: Config) -> dict[str, Any]:
    """One turn: `rows` answered, and the `mj` of each counter meanwhile. Or `lacking`: why no counter can be read."""
    counters, why = _energy.counters()
    if not counters:
        return {"lacking": why}
    return taken(subject, config, counters)


def taken(subject: Subject, config: Config, counters: list[_energy.Counter]) -> dict[str, Any]:
    """A turn by these counters."""
    together, rows = config.batch_size or subject.together, 0
    with quiet(config.settle_seconds):
        subject.work(together, config.seed)
        before, started = [counter.read() for counter in counters], time.perf_counter()
        while not rows or time.perf_counter() - started < config.seconds:
            subject.work(together, config.seed)
            rows += together
        after = [counter.read() for counter in counters]
    spent = [counter.spent_mj(first, last) for counter, first, last in zip(counters, before, after, strict=True)]
    return {"rows": rows, "mj": dict(zip((counter.name for counter in counters), spent, strict=True))}


def summarize(samples: list[dict[str, Any]], config: Config) -> dict[str, Reading]:
    """Median over the rounds, in mJ; `n` counts rounds."""
    unit, better, *_ = READINGS["energy_mj_per_row"]
    lacking = next((each["lacking"] for each in samples if "lacking" in each), "")
    if lacking:
        return {"energy_mj_per_row": Reading(name="energy_mj_per_row", value=None, unit=unit, better=better, n=0, note=lacking)}
    found = [sum(each["mj"].values()) / each["rows"] for each in samples]
    low, high, how = median_range(found)
    note = f"of {', '.join(samples[0]['mj'])}, idle and other work included"
    return {"energy_mj_per_row": Reading(name="energy_mj_per_row", value=median(found), unit=unit, better=better, n=len(found),
                                         low=low, high=high, interval=how, note=note)}
