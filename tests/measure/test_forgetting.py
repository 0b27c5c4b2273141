"""What tuning cost in general language, beside transformers' own loss and beside the untuned model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtune.measure import forgetting
from trimtune.records import DataSpec, Study, Use
from trimtune.store import Store
from trimtune.study import general

OWN = ("Once upon a time, there was a little girl named Lily.", "One day, a big dog came to the house. " * 20)


def summarized(own: dict[str, Any], untuned: dict[str, Any] | None) -> Any:
    return forgetting.summarize([own], forgetting.Config(), untuned)


def test_the_untuned_model_has_forgotten_nothing_and_its_perplexity_is_that_of_transformers(lm: Callable[..., Any],
                                                                                            stories: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = forgetting.Config(texts=OWN, tokens=64)
    own, untuned = forgetting.sample(lm(), config), forgetting.reference(stories, config, "causal_lm", 128)
    found = forgetting.summarize([own], config, untuned)
    assert found["forgetting"].value == pytest.approx(0, abs=1e-4)
    assert found["forgetting"].n == 2
    model, tokenizer = AutoModelForCausalLM.from_pretrained(stories).eval(), AutoTokenizer.from_pretrained(stories)
    sums = np.zeros(2)
    for text in OWN:
        ids = tokenizer(text)["input_ids"]
        for start in range(0, len(ids) - 1, 64):
            piece = torch.tensor([ids[start:start + 64]])
            if piece.shape[1] > 1:
                with torch.inference_mode():
                    sums += float(model(input_ids=piece, labels=piece).loss) * (piece.shape[1] - 1), piece.shape[1] - 1
    assert found["general_perplexity"].value == pytest.approx(math.exp(sums[0] / sums[1]), rel=1e-4)
    assert sum(own["tokens"]) == sums[1]


def test_a_heading_of_one_token_counts_for_nothing(lm: Callable[..., Any], stories: Path) -> None:
    config = forgetting.Config(texts=("", *OWN, ""))
    own, untuned = forgetting.sample(lm(), config), forgetting.reference(stories, config, "causal_lm", 128)
    found = forgetting.summarize([own], config, untuned)
    assert [found[name].n for name in forgetting.READINGS] == [2, 2]
    assert own == forgetting.sample(lm(), forgetting.Config(texts=OWN))


def test_rows_are_no_longer_than_the_studys(lm: Callable[..., Any]) -> None:
    found = forgetting.sample(lm(max_length=32), forgetting.Config(texts=OWN))
    whole = forgetting.sample(lm(), forgetting.Config(texts=OWN))
    assert sum(found["tokens"]) < sum(whole["tokens"]), "the first token of each piece is not foreseen"
    assert found["nll"] != whole["nll"]


def test_a_damaged_model_has_forgotten_and_says_how_sure_that_is(lm: Callable[..., Any], stories: Path) -> None:
    import torch

    subject, config = lm(), forgetting.Config()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in subject.decoder.model.parameters():
            parameter += 0.05 * parameter.std() * torch.randn_like(parameter)
    untuned = forgetting.reference(stories, config, "causal_lm", 128)
    found = forgetting.summarize([forgetting.sample(subject, config)], config, untuned)
    lost, after = found["forgetting"], found["general_perplexity"]
    assert lost.n == after.n == len(general.read(None))
    assert 0 < lost.low < lost.value < lost.high
    before = math.exp(sum(untuned["nll"]) / sum(untuned["tokens"]))
    assert after.value == pytest.approx(before * math.exp(lost.value))
    assert f"perplexity {before:.4g} of the untuned model" in lost.note
    assert lost.high - lost.low < math.log(after.high / after.low), "the same paragraphs are compared, so pairs tell more"


def test_without_an_untuned_model_to_compare_with_it_says_why() -> None:
    own = {"nll": [4.0, 6.0], "tokens": [2, 3]}
    for untuned, why in ((None, "not asked"), ({"lacking": "out of memory"}, "out of memory"),
                         ({"nll": [4.0], "tokens": [2]}, "other tokens")):
        found = summarized(own, untuned)
        assert found["general_perplexity"].value == pytest.approx(math.exp(2))
        assert found["forgetting"].value is None
        assert why in found["forgetting"].note
    assert summarized({"nll": [], "tokens": []}, None)["general_perplexity"].value is None


def study(general_: str | None) -> Study:
    return Study(name="a", model="b", task="causal_lm", data=DataSpec(train="t.csv", general=general_), tune=(), trim=(),
                 engine=(Use(name="e"),))


def test_another_text_is_another_setting(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("A cat sat.\n\nA dog ran.")
    assert forgetting.settings(study(str(tmp_path / "own.txt"))) == {"texts": ["A cat sat.", "A dog ran."]}
    assert forgetting.settings(study(None)) == {"texts": general.read(None)}


@pytest.mark.slow
def test_the_untuned_model_is_asked_once_and_one_that_fails_is_a_note(store: Store, stories: Path, tmp_path: Path) -> None:
    from trimtune.measure._study import references, settings_of

    def base(source: Path, name: str) -> Any:
        from trimtune.store import link_tree

        def work(folder: Path) -> dict[str, Any]:
            link_tree(source, folder)
            return {}

        return store.step("base", name, work, {}, fresh=False)

    (tmp_path / "own.txt").write_text("A cat sat.\n\nA dog ran.")
    configs = {"size": {}, "forgetting": settings_of(study(str(tmp_path / "own.txt")))["forgetting"]}
    found = references(configs, base(stories, "stories"), "causal_lm", 128, store)
    assert len(found["forgetting"]["nll"]) == 2
    steps = len(store.steps)
    assert references(configs, base(stories, "stories"), "causal_lm", 128, store) == found
    assert len(store.steps) == steps
    (tmp_path / "empty").mkdir()
    lacking = references(configs, base(tmp_path / "empty", "empty"), "causal_lm", 128, store)
    assert "can't be measured" in lacking["forgetting"]["lacking"]
