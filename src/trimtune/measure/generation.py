"""How fast answers are written: time to the first token, then tokens per second, alone and 8 answers together.

When to use: for what a user of a chat waits, and for what a server gives. Protocol: candidates take turns, six rounds; in a
round every candidate gets the same prompts of the test split in seeded order (of plain texts their first halves), as tokens.
At each turn a pause and a warm-up come first and are discarded, in the first turn one prompt of each length that will come
(engines prepare their kernels by shape) and a whole round. Then:

    first_token_ms  taking in one prompt until the logits of its first new token, batch 1; median over all prompts
    tokens_per_s    `new_tokens` steps with one row, the likeliest token taken each time; median of the rounds
    tokens_per_s_8  the same with 8 rows, tokens of all of them counted; taking in the prompts is not part of either
    latency_p50_ms  a whole answer: a round's median first token and `new_tokens` of its steps; median of the rounds
    kv_cache_mb     keys and values of those 8 rows at the end, in MB (10^6 bytes), the largest of the rounds

End tokens are ignored, so every candidate writes as many tokens. first_token_ms has a bootstrap interval over rounds and
prompts, the rates one from order statistics. A slow model's steps are cut at `at_most` seconds.

Two candidates are compared by their whole answers, round by round, since what slows the machine for a while slows both:

    ratio = median over rounds r of  answer_A[r] / answer_B[r]      answer: latency_p50_ms of one round

Its 95% interval is a bootstrap over rounds (Efron & Tibshirani 1993, chapter 13), 2,000 times; the percentiles are moved outward
for the small number of rounds (Hesterberg 2014, arXiv 1411.5279, the expanded percentile interval), and the 2.5% by which two
processes of one artifact may differ is added in squares; what the machine drifted between two sessions, and what other load may
have slowed, outright. One is called faster only if the interval leaves 1 out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trimtune.engines._decoding import padded
from trimtune.measure._intervals import median_range, percentile_interval, samples_needed
from trimtune.measure._lm_subject import LMSubject
from trimtune.measure._timing import passes, quiet
from trimtune.records import Quantity, Reading

TASKS = ("causal_lm",)
READINGS = {
    "latency_p50_ms": Quantity("ms", "lower", "Latency p50",
                               "Time for a whole answer; half of the answers came at least this fast."),
    "first_token_ms": Quantity("ms", "lower", "First token",
        "Time from a prompt's tokens to the first token of its answer; half of them came at least this fast."),
    "tokens_per_s": Quantity("tokens/s", "higher", "Tokens per second",
                             "Tokens of one answer written per second, once the prompt is taken in."),
    "tokens_per_s_8": Quantity("tokens/s", "higher", "Tokens per second, 8 rows",
                               "Tokens written per second by eight answers together."),
    "kv_cache_mb": Quantity("MB", "lower", "KV cache", "Keys and values that the model keeps for eight answers.")}
ROUNDS = 6
TURNS = "ms"
_TOGETHER = 8


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    rows: int = Field(4, ge=1, description="prompts per turn that are timed to their first token; six turns make 24")
    new_tokens: int = Field(32, ge=2, description="steps per turn")
    at_most: float = Field(4.0, gt=0, description="seconds after which the steps of a turn are cut")
    warm_up: int = Field(2, ge=1, description="steps discarded before those that are timed")
    settle_seconds: float = Field(0.04, ge=0, description="pause before a turn: ONNX Runtime's threads spin 35 ms after a call")
    seed: int = Field(2, description="order in which prompts are drawn")


def sample(subject: LMSubject, config: Config) -> dict[str, Any]:
    """One turn: `first_ms` of each prompt, [steps, seconds] of one row and of 8, `cache_bytes` of the 8."""
    with quiet(config.settle_seconds):
        if subject.turn == 0:
            coming = [prompt for turn in range(ROUNDS) for prompt in _alone(subject, config, turn)]
            for prompt in {len(prompt): prompt for prompt in coming}.values():
                _begin(subject, [prompt])
            _round(subject, config)
        return _round(subject, config)


def _alone(subject: LMSubject, config: Config, turn: int | None = None) -> list[list[int]]:
    return subject.draw(config.rows, config.seed, config.new_tokens + config.warm_up, turn)


def _round(subject: LMSubject, config: Config) -> dict[str, Any]:
    alone = _alone(subject, config)
    together = subject.draw(_TOGETHER, config.seed + 1, config.new_tokens + config.warm_up)
    _begin(subject, alone[:1])
    first = passes(lambda prompt: _begin(subject, [prompt]), alone, 0.0, config.at_most)
    one = _steps(subject, alone[:1], config)
    several = _steps(subject, together, config)
    return {"first_ms": [1e3 * seconds for seconds in first], "one": one, "several": several,
            "cache_bytes": subject.decoder.cache_bytes()}


def _begin(subject: LMSubject, prompts: Sequence[Sequence[int]]) -> np.ndarray:
    return subject.decoder.begin(*padded(prompts, left=True))


def _steps(subject: LMSubject, prompts: Sequence[Sequence[int]], config: Config) -> tuple[int, float]:
    """Steps that were timed, and their seconds."""
    logits_BV = _begin(subject, prompts)
    for _ in range(config.warm_up):
        logits_BV = subject.decoder.step(logits_BV.argmax(axis=1))
    started, steps = time.perf_counter(), 0
    while steps < config.new_tokens and time.perf_counter() - started < config.at_most:
        logits_BV = subject.decoder.step(logits_BV.argmax(axis=1))
        steps += 1
    return steps, time.perf_counter() - started


def summarize(samples: list[dict[str, Any]], config: Config) -> dict[str, Reading]:
    """Medians over the rounds; `n` counts prompts for the first token, rounds for the rates."""
    rounds = [taken["first_ms"] for taken in samples]
    n, needed = sum(map(len, rounds)), samples_needed(50)
    low, high = percentile_interval(rounds, 50, config.seed)
    first = _reading("first_token_ms", None, n, note=f"too few samples, {n} of {needed}")
    if n >= needed:
        first = _reading("first_token_ms", median(ms for taken in rounds for ms in taken), n, low, high,
                         "bootstrap over rounds and samples 95%")
    whole = [ms for ms, in by_round(samples, config)]
    low, high, how = median_range(whole)
    answer = _reading("latency_p50_ms", median(whole), len(whole), low, high, how, f"an answer of {config.new_tokens} tokens")
    return {"latency_p50_ms": answer, "first_token_ms": first,
            "tokens_per_s": _rate("tokens_per_s", [taken["one"] for taken in samples], 1),
            "tokens_per_s_8": _rate("tokens_per_s_8", [taken["several"] for taken in samples], _TOGETHER),
            "kv_cache_mb": _reading("kv_cache_mb", max(taken["cache_bytes"] for taken in samples) / 1e6, len(samples))}


def by_round(samples: list[dict[str, Any]], config: Config) -> list[list[float]]:
    """Of each round the time of a whole answer in ms: its median first token and `new_tokens` of its steps."""
    return [[round(median(taken["first_ms"]) + config.new_tokens * 1e3 * taken["one"][1] / taken["one"][0], 4)]
            for taken in samples]


def pace_ms(samples: list[dict[str, Any]]) -> float:
    """Median time of a step with one row: tells whether the machine has kept its pace."""
    return 1e3 * median(seconds / steps for steps, seconds in (taken["one"] for taken in samples))


def _rate(name: str, taken: list[tuple[int, float]], rows: int) -> Reading:
    rates = [rows * steps / seconds for steps, seconds in taken]
    low, high, how = median_range(rates)
    return _reading(name, median(rates), len(rates), low, high, how)


def _reading(name: str, value: float | None, n: int, low: float | None = None, high: float | None = None, interval: str = "",
             note: str = "") -> Reading:
    unit, better, *_ = READINGS[name]
    return Reading(name=name, value=value, unit=unit, better=better, n=n, low=low, high=high, interval=interval, note=note)
