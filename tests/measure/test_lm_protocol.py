"""Language models measured by the whole protocol, with real processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtune.measure import _protocol
from trimtune.measure._protocol import Measured, measure_all
from trimtune.records import Artifact, Use
from trimtune.store import Store, link_tree

QUICK = {"answers": {"max_new": 8}, "generation": {"new_tokens": 4, "settle_seconds": 0.0}}


def copied(folder: Path, source: Path, name: str) -> dict[str, str]:
    link_tree(source, folder)
    (folder / "name.txt").write_text(name)
    return {}


def measured(store: Store, rows: Artifact, stories: Path, kind: str, *names: str) -> Measured:
    folders = {name: store.step("engine", name, copied, {"source": stories, "name": name}, fresh=False) for name in names}
    return measure_all(folders, dict.fromkeys(names, Use(name="plain_decoder")), rows, 128, store, task="causal_lm",
                       reading={"kind": kind, "template": "", "learned": "answers"}, configs=QUICK)


@pytest.mark.slow
def test_candidates_are_measured_and_a_rerun_measures_nothing(store: Store, lm_rows: Callable[[str], Artifact],
                                                              stories: Path) -> None:
    events: list[dict[str, Any]] = []
    first = measured(store, lm_rows("pairs"), stories, "pairs", "a", "b")
    store.watch = events.append
    assert measured(store, lm_rows("pairs"), stories, "pairs", "a", "b") == first
    assert not [event for event in events if event["kind"] == "progress"]
    readings, by_row, failures, examples, by_answer, by_round = first
    assert len(by_answer["a"]) == 9
    assert [len(times) for times in by_round["a"].ms] == [1] * 6, "of each round the time of an answer"
    assert by_round["a"].session == by_round["b"].session != ""
    assert readings["a"]["forgetting"].value is None, "no untuned model was given"
    assert not failures
    assert set(readings["a"]) == {"perplexity", "bleu", "rouge_l", "exact_match", "number_match", "ended",
                                  "general_perplexity", "forgetting",
                                  "latency_p50_ms", "first_token_ms", "tokens_per_s", "tokens_per_s_8", "kv_cache_mb",
                                  "peak_memory_mb", "private_memory_mb", "size_mb", "weights_mb", "load_ms", "load_again_ms",
                                  "energy_mj_per_row"}
    assert readings["a"]["perplexity"] == readings["b"]["perplexity"]
    nll, tokens = (sum(column) for column in zip(*by_row["a"], strict=True))
    assert readings["a"]["perplexity"].value == pytest.approx(math.exp(nll / tokens))
    assert 1 < readings["a"]["peak_memory_mb"].value < 400
    assert examples["a"][0]["prompt"] == "name[The Mill], food[Fast]"


@pytest.mark.slow
def test_a_new_candidate_is_measured_beside_an_old_one(store: Store, lm_rows: Callable[[str], Artifact], stories: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_protocol, "DRIFT_ALLOWED", 1e9)
    rows = lm_rows("text")
    before = measured(store, rows, stories, "text", "a").readings["a"]
    after = measured(store, rows, stories, "text", "a", "b").readings
    assert after["a"] == before
    for name in ("first_token_ms", "tokens_per_s", "tokens_per_s_8"):
        assert "beside a, which then took " in after["b"][name].note
    assert "beside" not in after["b"]["perplexity"].note


@pytest.mark.slow
def test_plain_texts_are_measured_without_answers(store: Store, lm_rows: Callable[[str], Artifact], stories: Path) -> None:
    readings, _, failures, examples, by_answer, _ = measured(store, lm_rows("text"), stories, "text", "a")
    assert not failures
    assert readings["a"]["bleu"].value is None
    assert "no prompts" in readings["a"]["bleu"].note
    assert 2 < readings["a"]["perplexity"].value < 15
    assert readings["a"]["tokens_per_s"].value > 0
    assert examples == by_answer == {"a": []}
