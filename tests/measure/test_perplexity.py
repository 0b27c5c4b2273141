from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtune.errors import StepFailed
from trimtune.measure import _likelihood, perplexity
from trimtune.tasks._chunked_loss import IGNORED


def test_likelihoods_are_torchs_in_float64() -> None:
    import torch

    rng = np.random.default_rng(0)
    logits_BTV = (8 * rng.standard_normal((3, 200, 50))).astype(np.float32)
    targets = [[IGNORED, *rng.integers(0, 50, size=length - 1).tolist()] for length in (200, 7, 1)]
    targets[0][20:90] = [IGNORED] * 70
    found = _likelihood.negative_log_likelihood(logits_BTV, targets)
    for row, target in enumerate(targets):
        expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits_BTV[row, :len(target) - 1]).double(),
                                                     torch.tensor(target[1:], dtype=torch.long), ignore_index=IGNORED,
                                                     reduction="sum")
        assert found[row] == pytest.approx(float(expected), rel=1e-6)


def test_large_logits_neither_overflow_nor_round_to_nothing() -> None:
    logits_BTV = np.array([[[1e4, 0, -1e4], [0, 0, 0]]], dtype=np.float32)
    assert _likelihood.negative_log_likelihood(logits_BTV, [[IGNORED, 1]]) == [1e4]
    assert _likelihood.negative_log_likelihood(logits_BTV, [[IGNORED, 0]]) == [0]
    found = perplexity.summarize([{"nll": [1e5], "tokens": [1], "group": [0], "notes": []}], perplexity.Config())
    assert math.isfinite(found["perplexity"].value)


@pytest.mark.parametrize(("logits", "cause"), [
    (np.full((1, 3, 5), np.nan), "not finite"), (np.full((1, 3, 5), np.inf), "not finite"), (np.zeros((1, 2, 5)), "shape"),
    (np.zeros((1, 5)), "shape"), (np.zeros((1, 3, 4)), "knows 4 tokens")])
def test_logits_that_can_be_no_answer_fail(logits: np.ndarray, cause: str) -> None:
    with pytest.raises(StepFailed, match=cause):
        _likelihood.negative_log_likelihood(logits.astype(np.float32), [[IGNORED, 2, 4]])


def test_what_is_not_learned_may_be_anything() -> None:
    logits_BTV = np.zeros((1, 3, 5), dtype=np.float32)
    logits_BTV[0, 0] = np.nan
    assert _likelihood.negative_log_likelihood(logits_BTV, [[IGNORED, IGNORED, 4]]) == pytest.approx([math.log(5)])


def taken(rows: int, seed: int = 0, of_a_prompt: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, 30, size=rows)
    ease = np.repeat(rng.normal(2, 0.5, size=rows // of_a_prompt), of_a_prompt)
    return {"nll": (tokens * ease).tolist(), "tokens": tokens.tolist(), "group": [row // of_a_prompt for row in range(rows)],
            "notes": []}


def test_the_reading_and_its_interval() -> None:
    found = perplexity.summarize([{"nll": [2.0, 6.0], "tokens": [1, 3], "group": [0, 1], "notes": ["one row left out"]}],
                                 perplexity.Config())["perplexity"]
    assert found.value == pytest.approx(math.exp(2))
    assert (found.n, found.interval, found.note) == (2, "bootstrap over rows 95%", "one row left out")
    widths = []
    for rows in (60, 960):
        found = perplexity.summarize([taken(rows)], perplexity.Config())["perplexity"]
        assert found.low < found.value < found.high
        widths.append(math.log(found.high / found.low))
    assert 2.5 < widths[0] / widths[1] < 6


def test_rows_of_one_prompt_are_no_independent_evidence() -> None:
    alone, of_eight = taken(800), taken(800, of_a_prompt=8)
    found = perplexity.summarize([of_eight], perplexity.Config())["perplexity"]
    as_if = perplexity.summarize([{**of_eight, "group": alone["group"]}], perplexity.Config())["perplexity"]
    assert (found.n, found.interval) == (800, "bootstrap over 100 prompts 95%")
    assert math.log(found.high / found.low) > 2 * math.log(as_if.high / as_if.low)


@pytest.mark.parametrize(("kind", "learned"), [("pairs", "answers"), ("pairs", "all"), ("text", "answers")])
def test_it_is_the_loss_of_transformers(lm: Callable[..., Any], stories: Path, kind: str, learned: str) -> None:
    """Row by row through transformers' own loss; the batches here are padded, and of several lengths."""
    import torch
    from transformers import AutoModelForCausalLM

    subject = lm(kind, learned=learned)
    found = perplexity.sample(subject, perplexity.Config(batch_size=4))
    model = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32).eval()
    sums: dict[int, float] = {}
    for ids, target, number in zip(subject.inputs.ids, subject.inputs.targets, subject.inputs.numbers, strict=True):
        count = sum(label != IGNORED for label in target)
        with torch.inference_mode():
            loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([target])).loss
        sums[number] = sums.get(number, 0.0) + float(loss) * count
    assert found["nll"] == pytest.approx(list(sums.values()), rel=1e-4)
    assert sum(found["tokens"]) == sum(subject.inputs.counts)
    reading = perplexity.summarize([found], perplexity.Config())["perplexity"]
    assert reading.value == pytest.approx(math.exp(sum(sums.values()) / sum(subject.inputs.counts)), rel=1e-5)
    assert reading.n == (3 if kind == "text" else 11)
    if kind == "text":
        assert 2 < reading.value < 15, "it was trained on such stories"
        assert max(map(len, subject.inputs.ids)) <= 128 < sum(map(len, subject.inputs.ids))
    else:
        assert found["group"] == [0, 0, 1, 2, 0, 3, 4, 5, 6, 7, 8]
        assert reading.interval == "bootstrap over 9 prompts 95%"
    first = [row for row, group in enumerate(found["group"]) if group == 0]
    nll, tokens = perplexity.by_row([found])[0]
    assert nll == pytest.approx(sum(found["nll"][row] for row in first))
    assert tokens == sum(found["tokens"][row] for row in first)


def test_pieces_of_a_long_text_are_one_row(lm: Callable[..., Any]) -> None:
    subject = lm("text", max_length=16)
    assert len(subject.inputs.ids) > 3
    found = perplexity.sample(subject, perplexity.Config())
    assert len(found["nll"]) == 3
    assert "cut into pieces" in perplexity.summarize([found], perplexity.Config())["perplexity"].note


def test_small_batches_give_the_same(lm: Callable[..., Any]) -> None:
    whole, tight = (perplexity.sample(lm(), perplexity.Config(logits_mb=size))["nll"] for size in (256, 0.001))
    assert tight == pytest.approx(whole, rel=1e-4)


def test_of_many_rows_some_are_scored_with_whole_prompts_alike_for_all(lm: Callable[..., Any]) -> None:
    whole, some = (perplexity.sample(lm(), perplexity.Config(rows=rows)) for rows in (1000, 6))
    assert len(whole["nll"]) == 11
    assert not whole["notes"]
    assert 3 < len(some["nll"]) <= 6
    assert some["notes"] == [f"{len(some['nll'])} of 11 test rows, evenly spaced"]
    by_group = dict(zip(whole["group"], range(11), strict=True)).keys() & set(some["group"])
    expected = [value for value, group in zip(whole["nll"], whole["group"], strict=True) if group in by_group]
    assert some["nll"] == pytest.approx(expected, rel=1e-4), "a prompt that is scored is scored with all its rows"
    assert len(perplexity.by_row([some])) == len(by_group)
    found = perplexity.summarize([some], perplexity.Config())["perplexity"]
    assert found.n == len(some["nll"])
    assert "of 11 test rows, evenly spaced" in found.note


@pytest.mark.parametrize(("groups", "most", "kept"), [
    ([0, 1, 2, 3], 9, {0, 1, 2, 3}), ([0, 1, 2, 3], 2, {0, 2}), ([0, 0, 0, 1, 1], 2, {0}), ([0, 1, 0, 0, 2, 3], 3, {0}),
    (list(range(3000)), 1000, set(range(0, 3000, 3)))])
def test_prompts_are_evenly_spaced(groups: list[int], most: int, kept: set[int]) -> None:
    assert perplexity.spaced(groups, most) == kept
