"""Time that one row takes, from raw text to logits, tokenizing included.

When to use: for what an interactive user waits. Batch size 1, in milliseconds. All candidates have the same cores; each uses as
many threads as its export found the quickest for one row (1 … n were tried), in this and every other reading, and when it ships.
Protocol: candidates take turns, sixty rounds of 4 rows each, the same rows of the test split for every candidate, in
another order in each round; at each turn warm-up calls come first and are discarded, in the first turn one for each length of row
that will come (engines prepare their kernels by shape), then until their times have no trend (Geweke 1992). No pause: cores that
fall asleep answer late. Reported: median and 95th percentile of all rounds, each round with the same weight, with a bootstrap
interval over rounds and samples. A percentile p is refused below 10/(1-p) samples (p95: 200). `tokenizing_ms` is the part of it
that makes tokens of text, timed again by itself.
A slow model's turn is cut at `at_most` seconds; p95 may then be refused.

Two candidates are compared round by round, since what slows the machine for a while slows both:

    ratio = median over rounds r of  (median_i t_A[r, i] / median_i t_B[r, i])      i: the rows of round r, in ms

Its 95% interval is a bootstrap (Efron & Tibshirani 1993, chapter 13): rounds are drawn with replacement, then rows inside each
of them, the same for A and B, 2,000 times; the percentiles are moved outward for the small number of rounds (Hesterberg 2014,
arXiv 1411.5279, the expanded percentile interval), and the 2.5% by which two processes of one artifact may differ is added in
squares; what the machine drifted between two sessions, and what other load may have slowed, outright. One is called faster only
if the interval leaves 1 out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trimtune.measure._intervals import percentile_interval, percentile_of, samples_needed
from trimtune.measure._label_subject import LabelSubject
from trimtune.measure._timing import passes, quiet, until_steady
from trimtune.records import Quantity, Reading

TASKS = ("text_classification",)
READINGS = {
    "latency_p50_ms": Quantity("ms", "lower", "Latency p50", "Time for one row; half of the answers came at least this fast."),
    "latency_p95_ms": Quantity("ms", "lower", "Latency p95", "Time for one row: 95 of 100 answers came at least this fast."),
    "tokenizing_ms": Quantity("ms", "lower", "Tokenizing",
                              "The part of a row's time that makes tokens of its text; half of the rows took no longer.")}
ROUNDS = 60
TURNS = "ms"
_PERCENTILES = {"latency_p50_ms": 50.0, "latency_p95_ms": 95.0, "tokenizing_ms": 50.0}


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    rows: int = Field(4, ge=1, description="rows per turn; sixty turns of 4 make 240 samples, and p95 needs 200")
    at_most: float = Field(0.5, gt=0, description="seconds after which a turn is cut")
    warm_up_at_most: float = Field(1.5, gt=0, description="seconds after which a turn's warm-up is cut")
    warm_up: int = Field(2, ge=1, description="calls discarded at the start of each turn")
    seed: int = Field(0, description="order in which rows are drawn")


def sample(subject: LabelSubject, config: Config) -> dict[str, Any]:
    """One turn: `ms`, the time of each call, and `tokenizing`, that of making the tokens of each row alone."""
    texts = subject.draw(config.rows, config.seed)
    with quiet(0.0):
        passes(_one(subject), _warm_up(subject, texts, config), 0.0, config.warm_up_at_most)
        if subject.turn == 0:
            until_steady(_one(subject), texts, config.warm_up_at_most)
        taken = passes(_one(subject), texts, 0.0, config.at_most)
        apart = passes(lambda text: subject.encode([text]), texts, 0.0, config.at_most)
    return {"ms": [1e3 * seconds for seconds in taken], "tokenizing": [1e3 * seconds for seconds in apart]}


def _one(subject: LabelSubject) -> Callable[[str], object]:
    return lambda text: subject.logits([text])


def _warm_up(subject: LabelSubject, texts: list[str], config: Config) -> list[str]:
    if subject.turn > 0:
        return texts[:config.warm_up]
    coming = [text for turn in range(ROUNDS) for text in subject.draw(config.rows, config.seed, turn)]
    by_length = {subject.encode([text])["input_ids"].shape[1]: text for text in coming}
    return [*by_length.values(), *texts[:config.warm_up]]


def summarize(samples: list[dict[str, Any]], config: Config) -> dict[str, Reading]:
    """Median and 95th percentile over all turns, and the median of the part that makes tokens, in ms."""
    rounds, apart = ([sample[what] for sample in samples] for what in ("ms", "tokenizing"))
    return {name: _percentile(name, apart if name == "tokenizing_ms" else rounds, config.seed) for name in READINGS}


def by_round(samples: list[dict[str, Any]], config: Config) -> list[list[float]]:
    """Of each round the time of each of its rows in ms."""
    return [[round(ms, 4) for ms in taken["ms"]] for taken in samples]


def pace_ms(samples: list[dict[str, Any]]) -> float:
    """Median time of a call: tells whether the machine has kept its pace."""
    return float(np.median([ms for taken in samples for ms in taken["ms"]]))


def _percentile(name: str, rounds: list[list[float]], seed: int) -> Reading:
    unit, better, *_ = READINGS[name]
    needed, n = samples_needed(_PERCENTILES[name]), sum(map(len, rounds))
    if n < needed:
        return Reading(name=name, value=None, unit=unit, better=better, n=n,
                       note=f"too few samples, {n} of {needed}")
    low, high = percentile_interval(rounds, _PERCENTILES[name], seed)
    return Reading(name=name, value=percentile_of(rounds, _PERCENTILES[name]), unit=unit, better=better, n=n,
                   low=low, high=high, interval="bootstrap over rounds and samples 95%")
