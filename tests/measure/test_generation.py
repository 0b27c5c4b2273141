from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trimtune.measure import generation


def turn(first: float, one: float, several: float, size: int = 1000) -> dict[str, Any]:
    return {"first_ms": [first] * 4, "one": [32, one], "several": [20, several], "cache_bytes": size}


def test_readings_from_turns() -> None:
    found = generation.summarize([turn(5, 0.32, 0.4, 3_000_000), *[turn(6, 0.64, 0.8)] * 5], generation.Config())
    first, alone, together = (found[name] for name in ("first_token_ms", "tokens_per_s", "tokens_per_s_8"))
    assert (first.value, first.n) == (6, 24)
    assert (alone.value, alone.high, alone.n) == (50, 100, 6)
    assert (together.value, together.high) == (8 * 25, 8 * 50)
    assert found["kv_cache_mb"].value == 3
    assert generation.pace_ms([turn(5, 0.32, 0.4)] * 3) == pytest.approx(10)
    answers = generation.by_round([turn(5, 0.32, 0.4), turn(6, 0.64, 0.8)], generation.Config())
    assert answers == [[5 + 320], [6 + 640]], "a whole answer: its first token and 32 steps"
    for reading in (first, alone, together):
        assert reading.low <= reading.value <= reading.high


def test_a_median_is_refused_below_the_sample_rule() -> None:
    found = generation.summarize([turn(5, 0.3, 0.4)] * 4, generation.Config())["first_token_ms"]
    assert (found.value, found.note) == (None, "too few samples, 16 of 20")


def test_a_real_model_is_timed_on_the_same_rows_by_all(lm: Callable[..., Any]) -> None:
    subject, config = lm(), generation.Config(rows=2, new_tokens=5, settle_seconds=0.0)
    begun: list[Any] = []
    begin = subject.decoder.begin
    subject.decoder.begin = lambda ids, mask: begun.append(mask.sum(axis=1).tolist()) or begin(ids, mask)
    taken = []
    for count in range(3):
        subject.turn, begun[:] = count, []
        taken.append(generation.sample(subject, config))
        lengths = {len(prompt) for turn in range(6) for prompt in subject.draw(2, config.seed, 7, turn)}
        assert len(begun) == 5 + (count == 0) * (5 + len(lengths)), "the first turn warms up with every length and a round"
        assert [len(rows) for rows in begun[-5:]] == [1, 1, 1, 1, 8]
    assert [len(one["first_ms"]) for one in taken] == [2, 2, 2]
    assert [one["one"][0] for one in taken] == [one["several"][0] for one in taken] == [5, 5, 5]
    width = max(begun[-1]) + config.warm_up + config.new_tokens
    assert taken[-1]["cache_bytes"] == 5 * 2 * 8 * 4 * 8 * width * 4, "layers, K and V, rows, heads, channels, tokens, bytes"
    assert generation.summarize(taken * 4, config)["tokens_per_s_8"].value > generation.summarize(
        taken * 4, config)["tokens_per_s"].value


def test_steps_are_cut_and_still_counted_right(lm: Callable[..., Any]) -> None:
    subject = lm("text")
    taken = generation.sample(subject, generation.Config(new_tokens=400, at_most=0.02, settle_seconds=0.0))
    steps, seconds = taken["one"]
    assert 1 <= steps < 400
    assert 0.02 <= seconds < 1


def test_prompts_leave_room_for_what_is_written(lm: Callable[..., Any]) -> None:
    subject = lm()
    subject.decoder.model.config.max_position_embeddings = 10
    assert {len(prompt) for prompt in subject.draw(4, 0, 7)} == {3}
