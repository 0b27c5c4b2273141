"""Rows per second when 32 rows are answered together, tokenizing and padding included.

When to use: for work that comes in bulk. Threads stay those that were quickest for one row, and verdicts of trims go by one row.
Protocol: candidates take turns, twelve rounds; in a round every candidate gets the same batch of test rows in seeded order (not
sorted by length, as rows arrive at a server, so padding is paid), once discarded as warm-up and then timed until `seconds` are
spent. Reported: the median of the rounds' rows per second, with its interval from order statistics: of twelve batches, which
differ in length more than the machine does. Two candidates are compared batch by batch, as latency's rounds are.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from trimtune.measure._intervals import median_range
from trimtune.measure._label_subject import LabelSubject
from trimtune.measure._timing import passes, quiet
from trimtune.records import Quantity, Reading

TASKS = ("text_classification",)
READINGS = {
    "throughput_rows_per_s": Quantity("rows/s", "higher", "Throughput", "Rows answered per second when they come in batches.")}
ROUNDS = 12
TURNS = "bulk_ms"


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    batch_size: int = Field(32, ge=1, description="rows answered together")
    seconds: float = Field(0.05, ge=0, description="a turn repeats its batch until this is spent")
    at_most: float = Field(5.0, gt=0, description="seconds after which a turn is cut")
    settle_seconds: float = Field(0.04, ge=0, description="pause before a turn: ONNX Runtime's threads spin 35 ms after a call")
    seed: int = Field(1, description="order in which rows are drawn")


def sample(subject: LabelSubject, config: Config) -> dict[str, Any]:
    """One turn: `rows` answered in `seconds`."""
    batch = subject.draw(config.batch_size, config.seed)
    with quiet(config.settle_seconds):
        subject.logits(batch)
        taken = passes(subject.logits, [batch], config.seconds, config.at_most)
    return {"rows": len(batch) * len(taken), "seconds": sum(taken)}


def summarize(samples: list[dict[str, Any]], config: Config) -> dict[str, Reading]:
    """Median over the rounds, in rows/s; `n` counts rounds."""
    unit, better, *_ = READINGS["throughput_rows_per_s"]
    rates = [sample["rows"] / sample["seconds"] for sample in samples]
    low, high, how = median_range(rates)
    return {"throughput_rows_per_s": Reading(name="throughput_rows_per_s", value=median(rates), unit=unit, better=better,
                                             n=len(rates), low=low, high=high, interval=how)}


def by_round(samples: list[dict[str, Any]], config: Config) -> list[list[float]]:
    """Of each round the time of a row of its batch in ms."""
    return [[round(1e3 * sample["seconds"] / sample["rows"], 5)] for sample in samples]
