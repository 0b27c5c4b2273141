"""Baselines of language models as steps: the untuned model, and the nearest training prompt's answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtune.measure import answers, perplexity
from trimtune.measure._baselines import race
from trimtune.records import Artifact, DataSpec, Study, Use
from trimtune.store import Store, link_tree
from trimtune.study.language import Split
from trimtune.study.turns import Turn
from trimtune.tune.baselines import nearest_answer

CONFIGS: dict[str, dict[str, Any]] = {"answers": {"max_new": 6, "format": {"regex": "(?s).*[.]"}}}


def pairs(*rows: tuple[str, str]) -> Split:
    return Split([(Turn("user", prompt), Turn("assistant", answer)) for prompt, answer in rows], list(range(len(rows))))


def test_the_most_like_prompts_answer_is_copied() -> None:
    rule = nearest_answer.speaker(pairs(("name[Zizzi], food[Fast]", "Zizzi is fast."), ("name[Aromi]", "Aromi it is."),
                                        ("name[Aromi]", "never said")), Path())
    assert rule.answer
    assert rule.answer(["food[Fast], name[Mill]", "name[Aromi], area[city]", "entirely different"] * 70)[:2] == [
        "Zizzi is fast.", "Aromi it is."]
    texts = ("name[Zizzi], food[Fast]", "Zizzi is fast.", "name[Aromi]" * 2, "Aromi it is.never said")
    assert rule.size_bytes == sum(map(len, texts))


def test_prompts_in_any_script_and_of_one_sign_are_told_apart() -> None:
    rule = nearest_answer.speaker(pairs(("猫在睡觉", "睡"), ("狗在跑", "跑"), ("7", "seven"), ("+", "plus")), Path())
    assert rule.answer
    assert rule.answer(["猫睡觉", "狗跑了", "7 7"]) == ["睡", "跑", "seven"]


@pytest.fixture
def raced(store: Store, lm_rows: Callable[[str], Artifact], stories: Path) -> Callable[[str], Any]:
    def base(folder: Path) -> dict[str, Any]:
        link_tree(stories, folder)
        return {}

    def run(kind: str) -> Any:
        study = Study(name="a", model="b", task="causal_lm", data=DataSpec(train="t.csv"), tune=(), trim=(),
                      engine=(Use(name="e"),))
        return {one.name: one for one in race(study, store.step("base", "stories", base, {}, fresh=False), lm_rows(kind), store,
                                              CONFIGS)}

    return run


@pytest.mark.slow
def test_both_run_on_the_candidates_prompts_and_a_rerun_repeats_none(raced: Callable[[str], Any], store: Store,
                                                                     lm: Callable[..., Any]) -> None:
    found = raced("pairs")
    assert set(found) == {"untuned", "nearest_answer"}
    untuned, nearest = found["untuned"], found["nearest_answer"]
    subject, config = lm(), answers.Config(**CONFIGS["answers"])
    own = [perplexity.sample(subject, perplexity.Config())]
    wanted = answers.summarize([answers.sample(subject, config)], config)
    assert untuned.readings["perplexity"].value == pytest.approx(
        perplexity.summarize(own, perplexity.Config())["perplexity"].value, rel=1e-4)
    assert [tokens for _, tokens in untuned.predictions] == [tokens for _, tokens in perplexity.by_row(own)]
    assert untuned.readings["bleu"].value == wanted["bleu"].value
    assert len(untuned.by_answer) == len(nearest.by_answer) == 9
    assert "fit_seconds" not in untuned.readings, "nothing was fitted"
    assert untuned.readings["size_mb"].value == pytest.approx(1.05, abs=0.1)
    assert nearest.readings["exact_match"].value == 1, "the rows to learn from are the test rows"
    assert nearest.readings["format_valid"].value == 1
    assert "perplexity" not in nearest.readings
    assert "ended" not in nearest.readings
    assert (nearest.predictions, nearest.title) == ((), "Nearest answer")
    steps = len(store.steps)
    assert raced("pairs") == found
    assert len(store.steps) == steps


@pytest.mark.slow
def test_plain_texts_have_no_nearest_answer(raced: Callable[[str], Any]) -> None:
    found = raced("text")
    assert set(found) == {"untuned"}
    assert 2 < found["untuned"].readings["perplexity"].value < 15
    assert "bleu" not in found["untuned"].readings
